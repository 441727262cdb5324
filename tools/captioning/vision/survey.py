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


class Survey(NamedTuple):
    """What was seen, picture by picture."""

    images: ImageSet
    """Those that decoded."""
    table: PatchTable
    activations: tuple[Float[ndarray, "places units"], ...]
    """For each of those asked, [images * patches, units]."""
    n_failed: int


def survey(
    context: ToolContext, images: ImageSet, asked: Sequence[Asked], labeller: Labeller | None
) -> Survey:
    """Look at every picture once; `ToolError` where none decodes.

    All subjects must cut pictures out alike; the first one's way counts.
    """
    tables: list[PatchTable] = []
    read: list[list[Float[ndarray, "places units"]]] = [[] for _ in asked]
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
        for parts, each in zip(read, asked, strict=True):
            parts.append(patch_activations(each, np.stack(views)))
    if not kept:
        raise ToolError(f"corpus: none of the {len(images)} pictures decodes")
    return Survey(
        images=images if len(kept) == len(images) else chosen(images, kept),
        table=joined(tables),
        activations=tuple(np.concatenate(parts) for parts in read),
        n_failed=len(images) - len(kept) + len(images.undecodable),
    )


def patch_activations(
    asked: Asked, views: UInt8[ndarray, "batch h w 3"]
) -> Float[ndarray, "places units"]:
    """How active units are at each of 14 by 14 patches of pictures that were cut out already.

    Of a finer map the maximum within the patch counts; a coarser one is interpolated.
    """
    subject = asked.subject
    maps = subject.maps(subject.pixels(views), [asked.layer])[asked.layer][:, list(asked.units)]
    at_patches = on_patches(maps).permute(0, 2, 3, 1).reshape(-1, len(asked.units))
    activations: Float[ndarray, "places units"] = at_patches.float().cpu().numpy()
    assert len(activations) == len(views) * PATCHES
    return activations


def on_patches(maps: Float[Tensor, "batch units h w"]) -> Float[Tensor, "batch units 14 14"]:
    """Maps of any size, patch by patch."""
    if min(maps.shape[-2:]) >= GRID:
        return functional.adaptive_max_pool2d(maps, GRID)
    return functional.interpolate(maps, (GRID, GRID), mode="bilinear", align_corners=False)
