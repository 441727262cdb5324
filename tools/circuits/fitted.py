"""A relation's maps at every layer with the beta of each: what a lens reads through.

Estimating them takes a minute, so they are kept in the cache folder, named by all that they depend
on. A damaged file is as good as none: it is estimated again.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from dragoman.core.files import write_atomic
from dragoman.core.records import content_id
from dragoman.tools.circuits.approximation import (
    AffineMap,
    Inverse,
    LowRankMap,
    RelationMap,
    compact,
)
from dragoman.tools.circuits.selection import Setting, choose, sweep_reading
from dragoman.tools.circuits.study import Facts, candidate_layers, fit
from dragoman.tools.context import ToolContext
from dragoman.tools.registry import tools_digest
from dragoman.tools.relations import Sample

_KEPT = 8
"""Files of maps in the cache: about 40 MB each for the default subject."""


class Reader(NamedTuple):
    """The maps of one relation, and how strongly W h counts in each (beta)."""

    maps: dict[int, AffineMap]
    sweep: list[Setting]
    """The best beta at each layer, by what validation facts say after in-context examples."""

    @property
    def betas(self) -> dict[int, float]:
        """By layer."""
        return {setting.layer: setting.value for setting in self.sweep}

    @property
    def chosen(self) -> Setting:
        """The layer that reads the validation facts best."""
        return choose(self.sweep)


def fit_reader(ctx: ToolContext, template: str, facts: Facts) -> Reader:
    """Estimate the maps (or take them from the cache) and choose each layer's beta."""
    maps = fitted_maps(ctx, template, facts.estimation)
    tried = facts.known_among(facts.validation)
    sweep = sweep_reading(
        ctx.subject,
        maps,
        facts.readout.entity[:, tried],
        facts.of(tried),
        facts.first[tried],
        lambda layer: ctx.step(0, 0, f"reading at layer {layer}"),
    )
    return Reader(maps, sweep)


def fitted_maps(
    ctx: ToolContext, template: str, estimation: Sequence[Sample]
) -> dict[int, AffineMap]:
    """The maps that these estimation facts give at all layers below the last.

    Those of a large subject are its main directions.
    """
    subject = ctx.subject
    layers = candidate_layers(subject, None)
    name = content_id(
        {
            "subject": subject.identity.digest,
            "template": template,
            "estimation": [[each.subject, each.object] for each in estimation],
            "code": tools_digest(),
        }
    )
    path = ctx.cache / "relation_maps" / f"{name}.safetensors"
    maps = _stored(path, layers, subject.device)
    if maps is None:
        estimate = fit(subject, template, estimation, layers, ctx.step)
        maps = {layer: compact(each) for layer, each in estimate.maps.items()}
        _keep(path, maps)
    return maps


def _stored(path: Path, layers: Sequence[int], device: torch.device) -> dict[int, AffineMap] | None:
    try:
        tensors = {name: each.to(device) for name, each in load(path.read_bytes()).items()}
        maps = {layer: _read(tensors, layer) for layer in layers}
        path.touch()  # the file used last is the one kept longest
    except (OSError, SafetensorError, KeyError):
        return None
    return maps


def _read(tensors: Mapping[str, Tensor], layer: int) -> AffineMap:
    bias = tensors[f"{layer}.bias"]
    if f"{layer}.weight" in tensors:
        return RelationMap(tensors[f"{layer}.weight"], bias)
    return LowRankMap(Inverse(*(tensors[f"{layer}.{name}"] for name in Inverse._fields)), bias)


def _keep(path: Path, maps: Mapping[int, AffineMap]) -> None:
    tensors = {}
    for layer, each in maps.items():
        named = {"bias": each.bias}
        if isinstance(each, RelationMap):
            named["weight"] = each.weight
        else:
            named |= each.factors._asdict()
        for name, tensor in named.items():
            tensors[f"{layer}.{name}"] = tensor.cpu().contiguous()
    write_atomic(path, save(tensors))
    files = sorted(path.parent.glob("*.safetensors"), key=lambda each: -each.stat().st_mtime)
    for old in files[_KEPT:]:
        old.unlink(missing_ok=True)
