"""Units of a vision layer, laid out for captioning: pictures, patches, activations, a twin.

The same for the tools, the batch and the evals, so that all of them say the same of a unit.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dragoman.core.errors import ToolError, UserError
from dragoman.tools.captioning.vision.captioner import VisionCaptioner
from dragoman.tools.captioning.vision.exemplars import collect
from dragoman.tools.captioning.vision.images import ImageSet, chosen, folder_images
from dragoman.tools.captioning.vision.labeller import Labeller
from dragoman.tools.captioning.vision.parts import ImageSplit, split
from dragoman.tools.captioning.vision.probe import probe_images
from dragoman.tools.captioning.vision.store import VisionExemplars
from dragoman.tools.captioning.vision.survey import Asked, Survey, survey
from dragoman.tools.context import ToolContext
from dragoman.tools.registry import Effort
from dragoman.tools.subjects.vision_twin import random_vision_twin

IMAGES: dict[Effort, int] = {"quick": 240, "full": 900}
"""Of the probe set; of a person's folder `full` takes every picture."""
DECOYS: dict[Effort, int] = {"quick": 12, "full": 24}
MIN_IMAGES = 30
"""Of fewer pictures too few are held out for any score."""


class VisionBench(NamedTuple):
    """Requested units with all that they are captioned and scored by."""

    layer: int
    units: tuple[int, ...]
    images: ImageSet
    """Those that decoded, in the order of the captioner's table."""
    n_failed: int
    """Pictures that did not decode."""
    captioner: VisionCaptioner
    twin: VisionCaptioner | None
    """The same units of the same network with random weights."""

    @property
    def unit_names(self) -> list[str]:
        """`layer.unit` for each requested unit."""
        return [f"{self.layer}.{unit}" for unit in self.units]


def images_of(path: str | None, effort: Effort, seed: int) -> ImageSet:
    """A person's folder of pictures, or the probe set; `ToolError` names what is wrong with it."""
    if path is None:
        return probe_images(seed, IMAGES[effort])
    try:
        found = folder_images(
            Path(path).expanduser(), IMAGES["quick"] if effort == "quick" else None
        )
    except UserError as error:
        raise ToolError(str(error)) from None
    if len(found) < MIN_IMAGES:
        raise ToolError(
            f"images {path!r}: {len(found)} pictures decode; captions need {MIN_IMAGES} at least"
        )
    return found


def labeller_of(context: ToolContext) -> Labeller | None:
    """The embedded labeller; None where its weights are not there."""
    labeller = Labeller(context.weights_folder)
    return labeller if labeller.available else None


def decoys(context: ToolContext, layer: int, units: Sequence[int], wanted: int) -> list[int]:
    """Other units of the layer, for the floor; the same ones whichever units are asked for."""
    order = np.random.default_rng([context.seed, layer]).permutation(context.vision.n_units(layer))
    return [int(unit) for unit in order if unit not in units][:wanted]


def lay_out(
    context: ToolContext,
    layer: int,
    units: Sequence[int],
    images: ImageSet,
    *,
    n_decoys: int,
    twin: bool,
) -> VisionBench:
    """One pass over the pictures, and the captioner over what it saw.

    Raises:
        ToolError: no such layer or unit; too few pictures decode.
    """
    subject = context.vision
    subject.check_units(layer, units)
    columns = [*units, *decoys(context, layer, units, n_decoys)]
    asked = [Asked(subject, layer, columns)]
    if twin:
        asked.append(Asked(random_vision_twin(subject, context.seed), layer, columns))
    seen = survey(context, images, asked, labeller_of(context))
    return bench_of(
        context,
        seen,
        split_of(context, seen),
        layer,
        units,
        columns,
        place=0,
        twin_place=1 if twin else None,
    )


def split_of(context: ToolContext, seen: Survey) -> ImageSplit:
    """What a survey saw, cut in three; `ToolError` where too few pictures decoded."""
    if len(seen.images) < MIN_IMAGES:
        raise ToolError(
            f"images: {len(seen.images)} pictures decode; captions need {MIN_IMAGES} at least"
        )
    return ImageSplit(seen.table, sources(seen.images), context.seed)


def bench_of(
    context: ToolContext,
    seen: Survey,
    parts: ImageSplit,
    layer: int,
    units: Sequence[int],
    columns: Sequence[int],
    *,
    place: int,
    twin_place: int | None,
) -> VisionBench:
    """The bench of units that a survey saw: `columns` are what stands at `place` in it."""

    def captioner(where: int) -> VisionCaptioner:
        read = seen.read[where]
        return VisionCaptioner(
            parts,
            read.activations,
            len(units),
            peaks=read.peaks,
            units=columns,
            seed=context.seed,
        )

    return VisionBench(
        layer,
        tuple(units),
        seen.images,
        seen.n_failed,
        captioner(place),
        None if twin_place is None else captioner(twin_place),
    )


def sources(images: ImageSet) -> list[str]:
    """What each picture was cut from: crops of one photograph are never on both sides of a split.

    Pictures of a person's folder are taken to be independent.
    """
    if not images.attributes:
        return list(images.ids)
    return [
        attributes.get("picture", name)
        for name, attributes in zip(images.ids, images.attributes, strict=True)
    ]


def shown_exemplars(
    context: ToolContext, images: ImageSet, layers: Sequence[int]
) -> tuple[VisionExemplars, ImageSet]:
    """Exemplars with their masks, of every unit of `layers`, among the captioner's own pictures.

    The thresholds of the masks are the units' quantiles over all of those pictures. Held-out ones
    are left out: whoever is shown exemplars must not see what captions are judged on.
    """
    fit, validation, _ = split(sources(images), context.seed)
    own = chosen(images, sorted([*fit.tolist(), *validation.tolist()]))
    return collect(context, own, layers), own
