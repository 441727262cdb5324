"""Trained detectors on disk, beside the editors and by the same rules (`editing.store`).

Directions and the fitting split's statistics are safetensors; JSON says where they come from, holds
thresholds and risk curves, and what the detector was measured to be worth. The JSON file is written
last and holds the digest of the tensors: a detector is there whole or not at all.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load, save

from dragoman.core.files import file_sha256, write_atomic
from dragoman.core.records import JsonObject, Measurement, Record
from dragoman.tools.editing.detection.classifying import Calibration
from dragoman.tools.editing.detection.decoder import Decoder
from dragoman.tools.editing.detection.detector import Detector, FoldProbe
from dragoman.tools.editing.detection.probe import LayerScore, Probe
from dragoman.tools.editing.detection.questions import Question, Range
from dragoman.tools.statistics import Floats

FOLDER = "detectors"
"""Below the cache, beside the editors' folder."""
_TENSORS, _ACCOUNT = "detector.safetensors", "detector.json"
_ARRAYS = ("entity_mean", "entity_scale", "directions", "prior", "weights")


class Figures(Record):
    """What a detector was measured to be worth when it was trained, on entities held out."""

    measurements: tuple[Measurement, ...]
    controls: tuple[Measurement, ...]
    risks: tuple[JsonObject, ...]
    """Every tested fact, the riskiest first."""
    failed: tuple[JsonObject, ...]
    """Facts that could not be asked or read, and why."""
    account: JsonObject
    caveats: tuple[str, ...]


class Kept(NamedTuple):
    """A detector and its figures."""

    detector: Detector
    figures: Figures


class _Fold(Record):
    entities: tuple[str, ...]
    layers: tuple[int, ...]
    prior_weight: float
    claimed_weight: float
    threshold: float
    slope: float
    intercept: float
    tried: tuple[LayerScore, ...]


class _Account(Record):
    inputs: JsonObject
    """All that training depends on: subject, relation, question, layer, plan, seed, code."""
    question: Question
    template: str
    answer_ids: tuple[int, ...]
    objects: tuple[tuple[str, ...], ...]
    layers: tuple[int, ...]
    editor_layer: int
    editor_entities: tuple[str, ...]
    folds: tuple[_Fold, ...]
    figures: Figures
    tensors_sha256: str


def save_detector(folder: Path, kept: Kept, inputs: JsonObject) -> None:
    """Write a trained detector to its folder."""
    detector = kept.detector
    arrays = {
        f"{number}.{name}": np.ascontiguousarray(getattr(fold.probe.decoder, name))
        for number, fold in enumerate(detector.folds)
        for name in _ARRAYS
    }
    write_atomic(folder / _TENSORS, save(arrays))
    account = _Account(
        inputs=inputs,
        question=detector.question,
        template=detector.template,
        answer_ids=detector.among.ids,
        objects=detector.among.objects,
        layers=detector.layers,
        editor_layer=detector.editor_layer,
        editor_entities=tuple(sorted(detector.editor_entities)),
        folds=tuple(_written(fold) for fold in detector.folds),
        figures=kept.figures,
        tensors_sha256=file_sha256(folder / _TENSORS),
    )
    write_atomic(folder / _ACCOUNT, account.model_dump_json(indent=1))


def load_detector(folder: Path, inputs: JsonObject) -> Kept | None:
    """The detector in `folder`; None if there is none, or it is damaged, or of other inputs."""
    try:
        account = _Account.model_validate_json((folder / _ACCOUNT).read_bytes())
        tensors = (folder / _TENSORS).read_bytes()
        if account.inputs != inputs or account.tensors_sha256 != file_sha256(folder / _TENSORS):
            return None
        arrays: dict[str, Floats] = load(tensors)
        folds = [_read(number, fold, arrays) for number, fold in enumerate(account.folds)]
    except (OSError, ValidationError, SafetensorError, KeyError):
        # It can be trained again: a damaged copy is as good as none.
        return None
    detector = Detector(
        account.question,
        account.template,
        Range(account.answer_ids, account.objects),
        account.layers,
        account.editor_layer,
        frozenset(account.editor_entities),
        tuple(folds),
    )
    return Kept(detector, account.figures)


def _written(fold: FoldProbe) -> _Fold:
    decoder, calibration, tried = fold.probe
    return _Fold(
        entities=tuple(sorted(fold.entities)),
        layers=decoder.layers,
        prior_weight=decoder.prior_weight,
        claimed_weight=decoder.claimed_weight,
        threshold=calibration.threshold,
        slope=calibration.slope,
        intercept=calibration.intercept,
        tried=tried,
    )


def _read(number: int, fold: _Fold, arrays: Mapping[str, Floats]) -> FoldProbe:
    mean, scale, directions, prior, weights = (arrays[f"{number}.{name}"] for name in _ARRAYS)
    decoder = Decoder(
        fold.layers,
        mean,
        scale,
        directions,
        prior,
        fold.prior_weight,
        weights,
        fold.claimed_weight,
    )
    calibration = Calibration(fold.threshold, fold.slope, fold.intercept)
    return FoldProbe(frozenset(fold.entities), Probe(decoder, calibration, fold.tried))
