"""Trained editors on disk: safetensors for the weights, JSON for where they come from.

The JSON file is written last and holds the digest of the weights, so an editor is there whole or
not at all. Its folder is named by all that training depends on.
"""

from pathlib import Path

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load, save

from dragoman.core.files import file_sha256, write_atomic
from dragoman.core.records import JsonObject, Record
from dragoman.tools.editing.directions import Centroids
from dragoman.tools.editing.editors.catalogue import Kind, make_editor
from dragoman.tools.editing.fitting import Fit, LayerTrial
from dragoman.tools.editing.selection import StrengthTrial
from dragoman.tools.editing.training import EpochMeasure

_WEIGHTS, _ACCOUNT = "editor.safetensors", "editor.json"
_CENTROIDS = "centroids"


class Account(Record):
    """What the JSON file says."""

    inputs: JsonObject
    """All that training depends on: subject, relation, split, settings, seed, code."""
    kind: Kind
    layer: int
    trials: tuple[LayerTrial, ...]
    strengths: tuple[StrengthTrial, ...]
    difference_strength: float
    objects: tuple[str, ...]
    """Of the centroids, in the order of their vectors."""
    history: tuple[EpochMeasure, ...]
    best: EpochMeasure
    weights_sha256: str


def save_editor(folder: Path, fit: Fit, inputs: JsonObject) -> None:
    """Write a trained editor to its folder."""
    tensors = {**fit.editor.state_dict(), _CENTROIDS: fit.centroids.vectors}
    state = {name: tensor.contiguous().cpu() for name, tensor in tensors.items()}
    write_atomic(folder / _WEIGHTS, save(state))
    account = Account(
        inputs=inputs,
        kind=fit.kind,
        layer=fit.layer,
        trials=fit.trials,
        strengths=fit.strengths,
        difference_strength=fit.difference_strength,
        objects=fit.centroids.objects,
        history=fit.history,
        best=fit.best,
        weights_sha256=file_sha256(folder / _WEIGHTS),
    )
    write_atomic(folder / _ACCOUNT, account.model_dump_json(indent=1))


def load_editor(folder: Path, inputs: JsonObject, device: torch.device) -> Fit | None:
    """The editor in `folder`; None if there is none, or it is damaged, or of other inputs."""
    try:
        account = Account.model_validate_json((folder / _ACCOUNT).read_bytes())
        weights = (folder / _WEIGHTS).read_bytes()
        if account.inputs != inputs or account.weights_sha256 != file_sha256(folder / _WEIGHTS):
            return None
        state = load(weights)
    except (OSError, ValidationError, SafetensorError):
        # It can be trained again: a damaged copy is as good as none.
        return None
    try:
        editor = make_editor(account.kind, state["mean"].shape[-1], 0)
        vectors = state.pop(_CENTROIDS)
        editor.load_state_dict(state)
    except (KeyError, RuntimeError):
        return None
    return Fit(
        editor.to(device).requires_grad_(False),
        account.kind,
        account.layer,
        account.trials,
        account.strengths,
        account.difference_strength,
        Centroids(account.objects, vectors.to(device)),
        account.history,
        account.best,
    )
