"""One pass over a set of pictures: what their patches show, and how active units are there.

All subjects that are asked about see each picture while it is decoded, so a random-weight twin
costs a second forward pass and nothing else.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray
from torch import Tensor
from torch.nn import functional

from dragoman.core.errors import ToolError
from dragoman.tools.captioning.vision.images import ImageSet, Undecodable, chosen
from dragoman.tools.captioning.vision.labeller import Labeller
from dragoman.tools.captioning.vision.patches import (
    CHUNK,
    PATCHES,
    PatchTable,
    joined,
    patch_table,
)
from dragoman.tools.captioning.vision.textures import GRID
from dragoman.tools.context import ToolContext
from dragoman.tools.subjects.vision import VisionSubject


class Asked(NamedTuple):
    """Units of one layer of one subject."""

    subject: VisionSubject
    layer: int
    units: Sequence[int]


class Read(NamedTuple):
    """How active units were."""

    activations: Float[ndarray, "places units"]
    """Of those asked about, [images * patches, units]."""
    peaks: Float[ndarray, "images layer_units"]
    """Spatial maxima of all units of the layer."""


class Survey(NamedTuple):
    """What was seen, picture by picture."""

    images: ImageSet
    """Those that decoded."""
    table: PatchTable
    read: tuple[Read, ...]
    """One for each of those asked."""
    n_failed: int


def survey(
    context: ToolContext, images: ImageSet, asked: Sequence[Asked], labeller: Labeller | None
) -> Survey:
    """Look at every picture once; `ToolError` where none decodes.

    All subjects must cut pictures out alike; the first one's way counts.
    """
    tables: list[PatchTable] = []
    read: list[list[Read]] = [[] for _ in asked]
    kept: list[int] = []
    for start in range(0, len(images), CHUNK):
        context.step(start, len(images), f"looking at {len(images)} pictures")
        views = []
        for index in range(start, min(start + CHUNK, len(images))):
            try:
                picture = images.load(index)
            except Undecodable:
                continue
            views.append(asked[0].subject.view(picture))
            kept.append(index)
        if not views:
            continue
        tables.append(patch_table(views, labeller=labeller, cache=context.cache))
        for parts, part in zip(read, read_views(asked, np.stack(views)), strict=True):
            parts.append(part)
    if not kept:
        raise ToolError(f"corpus: none of the {len(images)} pictures decodes")
    return Survey(
        images=images if len(kept) == len(images) else chosen(images, kept),
        table=joined(tables),
        read=tuple(
            Read(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))
            for parts in read
        ),
        n_failed=len(images) - len(kept) + len(images.undecodable),
    )


def read_views(asked: Sequence[Asked], views: UInt8[ndarray, "batch h w 3"]) -> tuple[Read, ...]:
    """How active units are at each of 14 by 14 patches of pictures that were cut out already.

    One forward pass a subject, however many of its layers are asked about. Of a map finer than the
    patches the maximum within each counts; a coarser one is interpolated.
    """
    layers: dict[int, dict[int, None]] = {}
    subjects = {id(each.subject): each.subject for each in asked}
    for each in asked:
        layers.setdefault(id(each.subject), {})[each.layer] = None
    maps = {
        key: subject.maps(subject.pixels(views), list(layers[key]))
        for key, subject in subjects.items()
    }
    return tuple(_read(maps[id(each.subject)][each.layer], each.units) for each in asked)


def _read(maps: Float[Tensor, "batch layer_units h w"], units: Sequence[int]) -> Read:
    chosen = on_patches(maps[:, list(units)]).permute(0, 2, 3, 1).reshape(-1, len(units))
    assert len(chosen) == len(maps) * PATCHES
    return Read(chosen.float().cpu().numpy(), maps.amax(dim=(2, 3)).float().cpu().numpy())


def on_patches(maps: Float[Tensor, "batch units h w"]) -> Float[Tensor, "batch units 14 14"]:
    """Maps of any size, patch by patch."""
    if min(maps.shape[-2:]) >= GRID:
        return functional.adaptive_max_pool2d(maps, GRID)
    return functional.interpolate(maps, (GRID, GRID), mode="bilinear", align_corners=False)
