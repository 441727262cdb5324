"""Class accuracy without some channels of a vision subject (MILAN's analysis and editing uses).

Hernandez et al. 2022 (arXiv:2201.11114, sections 5 and 6): channels are set to zero at every place,
and accuracy is measured before and after. Beside it stand matched random channels of the layer and
the classes that were not asked about.
"""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int64, UInt8
from numpy import ndarray

from dragoman.core.errors import ToolError, UserError
from dragoman.core.escaping import visible
from dragoman.core.records import JsonObject, Measurement, ToolSuccess
from dragoman.tools.captioning.ablation_effects import (
    RANDOM_SETS,
    Measured,
    measured,
    typical,
)
from dragoman.tools.captioning.vision.exemplars import collect
from dragoman.tools.captioning.vision.images import ImageSet, Undecodable, folder_images
from dragoman.tools.captioning.vision.labels import kinds
from dragoman.tools.captioning.vision.probe import probe_images
from dragoman.tools.context import ToolContext
from dragoman.tools.registry import Effort
from dragoman.tools.statistics import wilson
from dragoman.tools.subjects.efficientnet import imagenet_labels
from dragoman.tools.subjects.vision import VisionSubject
from dragoman.tools.subjects.vision_resuming import starting_at

_IMAGES: dict[Effort, int] = {"quick": 60, "full": 240}
"""Of the classes asked about, and as many of others."""
_PROBED: dict[Effort, int] = {"quick": 120, "full": 480}
_BATCH = 16
_POOL = 8
"""Matched channels in the pool for each that is ablated."""
_FEW = 12
METRIC = "ablation_effect_class_accuracy"


class Gallery(NamedTuple):
    """Images with their right answers."""

    source: ImageSet
    views: UInt8[ndarray, "images h w 3"]
    """Of those that decode."""
    classes: Int64[ndarray, " images"]
    by_label: bool
    """The answers are the folder's; else they are the subject's own before any ablation."""
    n_failed: int
    """Images that did not decode."""


def ablate_channels(
    context: ToolContext,
    layer: int,
    units: Sequence[int],
    *,
    images: str | None,
    classes: Sequence[str],
    effort: Effort,
) -> ToolSuccess:
    """`ablate_in` on a folder of images, whose sub-folders name the right class of their pictures.

    Where none does, or without `images`, the subject's own answers before the ablation count as
    right.
    """
    context.vision.check_units(layer, units)
    gallery = look_at(context, _source(images, effort, context.seed))
    return ablate_in(context, gallery, layer, units, classes=classes, effort=effort)


def ablate_in(
    context: ToolContext,
    gallery: Gallery,
    layer: int,
    units: Sequence[int],
    *,
    classes: Sequence[str],
    effort: Effort,
) -> ToolSuccess:
    """What share of right answers is lost without the channels, beside matched random ones.

    Raises:
        ToolError: no such layer, unit or class; too few channels are left to match.
    """
    subject = context.vision
    subject.check_units(layer, units)
    if len(units) * 2 > subject.n_units(layer):
        raise ToolError(
            f"neurons: {len(units)} of the layer's {subject.n_units(layer)} leave none to match"
        )
    wanted = [number for name in classes for number in _class_numbers(subject, name)]
    truths, n_failed = gallery.classes, gallery.n_failed
    inside = np.isin(truths, wanted) if wanted else np.ones(len(truths), dtype=bool)
    asked = _some(np.flatnonzero(inside), _IMAGES[effort], context.seed)
    others = _some(np.flatnonzero(~inside), _IMAGES[effort], context.seed)
    if len(asked) == 0:
        raise ToolError(f"classes: none of the {len(truths)} images is of {list(classes)}")
    rows = np.concatenate([asked, others])
    sets = _matched_sets(context, gallery.source, layer, units, RANDOM_SETS[effort])
    intact, *changed = _right(context, gallery, rows, layer, [(), units, *sets])
    own, *others_lose = [intact - each for each in changed]
    random = np.stack(others_lose)
    n = len(asked)
    scope = visible(", ".join(classes), one_line=True) or "all classes"
    task = Measured(METRIC, "fraction", scope, -1, "channels of the layer")
    effect, p_value = measured(task, own[:n], random[:, :n], context.seed)
    effect = effect.model_copy(update={"n_failed": n_failed})
    controls = [typical(task, random[:, :n], context.seed)]
    if len(others):
        elsewhere = Measured(
            f"{METRIC}_of_other_classes", "fraction", scope, -1, "channels of the layer"
        )
        controls.append(measured(elsewhere, own[n:], random[:, n:], context.seed)[0])
    before, after = intact[:n], intact[:n] - own[:n]
    truth = "labels of the folder" if gallery.by_label else "the subject's own answers before"
    accuracy = _accuracy(after, before, scope, n_failed)
    described: JsonObject = {
        "layer": layer,
        "neurons": list(units),
        "classes": list(classes),
        "right_answers": truth,
        "images": gallery.source.description,
        "n_images_failed": n_failed,
        "accuracy_before": float(before.mean()),
        "accuracy_after": float(after.mean()),
        "p": p_value,
        "random_sets": [list(chosen) for chosen in sets],
        "random_changes": [float(value) for value in random[:, :n].mean(axis=1)],
    }
    return ToolSuccess(
        summary=(
            f"without {len(units)} channels of layer {layer} accuracy on {scope} goes from "
            f"{before.mean():.3f} to {after.mean():.3f} (n = {n}); one in twenty matched random "
            f"sets loses more than {effect.baseline:.3f} (rank p = {p_value:.3f})"
        ),
        measurements=(effect, accuracy),
        controls=tuple(controls),
        output=described,
        caveats=_caveats(n, len(sets), by_label=gallery.by_label),
    )


def _source(images: str | None, effort: Effort, seed: int) -> ImageSet:
    if images is None:
        return probe_images(seed, _PROBED[effort])
    try:
        return folder_images(Path(images).expanduser())
    except UserError as error:
        raise ToolError(str(error)) from None


def _class_numbers(subject: VisionSubject, name: str) -> list[int]:
    """A class by its label, one of the label's synonyms or its number; or a kind of things."""
    number = _class_number(subject, name)
    if number is not None:
        return [number]
    kind = next((each for each in kinds().values() if name in (each.name, each.plural)), None)
    known = [] if kind is None else classes_of(subject, kind.classes)
    if not known:
        raise ToolError(
            f"classes: {name!r} is no class of subject {subject.identity.name!r}; give a label, a "
            f"number of 0..{subject.n_classes - 1}, or a kind of things such as 'dogs'"
        )
    return known


def classes_of(subject: VisionSubject, classes: Iterable[int]) -> list[int]:
    """Classes of ImageNet as the subject's own, by their labels; those it lacks are left out."""
    labels = imagenet_labels()
    if subject.labels == labels:
        # Two labels stand for two classes each.
        return sorted(classes)
    found = {_class_number(subject, labels[each]) for each in classes}
    return sorted(each for each in found if each is not None)


def _class_number(subject: VisionSubject, name: str) -> int | None:
    for number, label in enumerate(subject.labels):
        if name.casefold() in (part.strip().casefold() for part in (label, *label.split(","))):
            return number
    return int(name) if name.isdecimal() and int(name) < subject.n_classes else None


def look_at(context: ToolContext, images: ImageSet) -> Gallery:
    """The images that decode with their right answers; `ToolError` where none does."""
    subject = context.vision
    views, labels = [], []
    for index in range(len(images)):
        context.step(index, len(images), "looking at images")
        try:
            views.append(subject.view(images.load(index)))
        except Undecodable:
            continue
        labels.append(images.labels[index])
    n_failed = len(images) - len(views) + len(images.undecodable)
    if not views:
        raise ToolError(f"images: none of the {len(images)} images decodes")
    stacked = np.stack(views)
    numbers = _numbers(subject, labels)
    if numbers is None:
        return Gallery(images, stacked, _answers(subject, stacked), False, n_failed)
    return Gallery(images, stacked, numbers, True, n_failed)


def _numbers(
    subject: VisionSubject, labels: Sequence[str | None]
) -> Int64[ndarray, " images"] | None:
    """The labels as the subject's classes; None unless each of them is one."""
    known = {label: _class_number(subject, label or "") for label in set(labels)}
    numbers = [known[label] for label in labels]
    if any(number is None for number in numbers):
        return None
    return np.array(numbers, dtype=np.int64)


def _answers(
    subject: VisionSubject, views: UInt8[ndarray, "images h w 3"]
) -> Int64[ndarray, " images"]:
    parts = [
        subject.logits(subject.pixels(views[start : start + _BATCH])).argmax(dim=1)
        for start in range(0, len(views), _BATCH)
    ]
    return np.concatenate([part.cpu().numpy() for part in parts])


def _right(
    context: ToolContext,
    gallery: Gallery,
    rows: ndarray,
    layer: int,
    ablated: Sequence[Sequence[int]],
) -> Float[ndarray, "ablations rows"]:
    """For each set of channels, 1 for each image whose class the subject names without it, else 0.

    Batch by batch: what stands before the layer is computed once for all sets.
    """
    subject, right = context.vision, np.zeros((len(ablated), len(rows)))
    for start in range(0, len(rows), _BATCH):
        chosen = rows[start : start + _BATCH]
        pixels = subject.pixels(gallery.views[chosen])
        with starting_at(subject, layer, pixels):
            for number, units in enumerate(ablated):
                context.step(start, len(rows), "ablating channels, and matched random ones")
                answers = subject.logits(pixels, {layer: list(units)}).argmax(dim=1).cpu().numpy()
                right[number, start : start + _BATCH] = answers == gallery.classes[chosen]
    return right


def _some(rows: ndarray, most: int, seed: int) -> ndarray:
    """At most so many of the rows, drawn at random."""
    return np.sort(np.random.default_rng([seed, 15]).permutation(rows)[:most])


def _matched_sets(
    context: ToolContext, images: ImageSet, layer: int, units: Sequence[int], count: int
) -> list[tuple[int, ...]]:
    """Different sets of other channels, each matched to one that is ablated by how often and how
    strongly it is active: `count` of them, or all that there are.
    """
    found = collect(context, images, [layer])
    ranks = np.stack(
        [np.argsort(np.argsort(each)) for each in (found.density(layer), found.highest(layer))]
    )
    generator = np.random.default_rng([context.seed, 16, layer])
    free = np.array([unit for unit in range(ranks.shape[1]) if unit not in units])
    count = min(count, math.comb(len(free), len(units)))
    size = max(_POOL, 2 * len(units), count)
    pools = []
    for unit in units:
        distance = np.hypot(*(ranks[:, free] - ranks[:, [unit]]))
        pools.append(free[np.argsort(distance, kind="stable")])
    sets: dict[frozenset[int], tuple[int, ...]] = {}
    while len(sets) < count:
        chosen: list[int] = []
        for pool in pools:
            near = [int(unit) for unit in pool if unit not in chosen][:size]
            chosen.append(int(generator.choice(near)))
        sets.setdefault(frozenset(chosen), tuple(chosen))
    return list(sets.values())


def _accuracy(
    after: Float[ndarray, " images"], before: Float[ndarray, " images"], scope: str, n_failed: int
) -> Measurement:
    return Measurement(
        metric="class_accuracy_without_channels",
        value=float(after.mean()),
        unit="fraction",
        baseline=float(before.mean()),
        control="no ablation",
        ci95=wilson(int(after.sum()), len(after)),
        baseline_ci95=wilson(int(before.sum()), len(before)),
        n=len(after),
        n_failed=n_failed,
        scope=scope,
    )


def _caveats(n: int, n_sets: int, *, by_label: bool) -> tuple[str, ...]:
    caveats = ["Channels are set to zero in one layer: later layers may make up for them."]
    if n_sets < RANDOM_SETS["quick"]:
        caveats.append(
            f"The layer gives {n_sets} different random sets, too few for any rank to be as rare "
            "as one in twenty."
        )
    if not by_label:
        caveats.append(
            "The images carry no class of this subject: its own answers before the ablation count "
            "as right, so accuracy before it is 1."
        )
    if n < _FEW:
        caveats.append(f"Only {n} images stand behind the interval.")
    return tuple(caveats)
