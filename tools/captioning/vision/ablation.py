"""Class accuracy without some channels of a vision subject (MILAN's analysis and editing uses).

Hernandez et al. 2022 (arXiv:2201.11114, sections 5 and 6): channels are set to zero at every place,
and accuracy is measured before and after. Beside it stand matched random channels of the layer and
the classes that were not asked about.
"""

from collections.abc import Mapping, Sequence
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
from dragoman.tools.captioning.vision.probe import probe_images
from dragoman.tools.context import ToolContext
from dragoman.tools.registry import Effort
from dragoman.tools.statistics import wilson
from dragoman.tools.subjects.vision import VisionSubject

_IMAGES: dict[Effort, int] = {"quick": 60, "full": 240}
"""Of the classes asked about, and as many of others."""
_PROBED: dict[Effort, int] = {"quick": 120, "full": 480}
_BATCH = 16
_POOL = 8
"""Matched channels in the pool for each that is ablated."""
_FEW = 12
METRIC = "ablation_effect_class_accuracy"


class _Shown(NamedTuple):
    """Images with their right answers."""

    views: UInt8[ndarray, "images h w 3"]
    classes: Int64[ndarray, " images"]


def ablate_channels(
    context: ToolContext,
    layer: int,
    units: Sequence[int],
    *,
    images: str | None,
    classes: Sequence[str],
    effort: Effort,
) -> ToolSuccess:
    """What share of right answers is lost without the channels, beside matched random ones.

    Sub-folders of `images` name the right class of their pictures. Where none does, or without
    `images`, the subject's own answers before the ablation count as right.

    Raises:
        ToolError: no such layer, unit or class; too few channels are left to match.
    """
    subject = context.vision
    subject.check_units(layer, units)
    if len(units) * 2 > subject.n_units(layer):
        raise ToolError(
            f"neurons: {len(units)} of the layer's {subject.n_units(layer)} leave none to match"
        )
    wanted = [_class_number(subject, name) for name in classes]
    source = _source(images, effort, context.seed)
    shown, by_label, n_failed = _labelled(context, source)
    inside = np.isin(shown.classes, wanted) if wanted else np.ones(len(shown.classes), dtype=bool)
    asked = _some(np.flatnonzero(inside), _IMAGES[effort], context.seed)
    others = _some(np.flatnonzero(~inside), _IMAGES[effort], context.seed)
    if len(asked) == 0:
        raise ToolError(f"classes: none of the {len(shown.classes)} images is of {list(classes)}")
    rows = np.concatenate([asked, others])
    sets = _matched_sets(context, source, layer, units, RANDOM_SETS[effort])
    intact = _right(subject, shown, rows, {})
    changes = []
    for number, chosen in enumerate([units, *sets]):
        context.step(number, 1 + len(sets), "ablating" if number == 0 else "ablating random sets")
        changes.append(intact - _right(subject, shown, rows, {layer: list(chosen)}))
    own, random = changes[0], np.stack(changes[1:])
    n = len(asked)
    scope = visible(", ".join(classes), one_line=True) or "all classes"
    task = Measured(METRIC, "fraction", scope, -1, "channels")
    effect, p_value = measured(task, own[:n], random[:, :n], context.seed)
    effect = effect.model_copy(update={"n_failed": n_failed})
    controls = [typical(task, random[:, :n], context.seed)]
    if len(others):
        elsewhere = Measured(f"{METRIC}_of_other_classes", "fraction", scope, -1, "channels")
        controls.append(measured(elsewhere, own[n:], random[:, n:], context.seed)[0])
    before, after = intact[:n], intact[:n] - own[:n]
    truth = "labels of the folder" if by_label else "the subject's own answers before"
    accuracy = _accuracy(after, before, scope, n_failed)
    described: JsonObject = {
        "layer": layer,
        "neurons": list(units),
        "classes": list(classes),
        "right_answers": truth,
        "images": source.description,
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
        caveats=_caveats(n, by_label=by_label),
    )


def _source(images: str | None, effort: Effort, seed: int) -> ImageSet:
    if images is None:
        return probe_images(seed, _PROBED[effort])
    try:
        return folder_images(Path(images).expanduser())
    except UserError as error:
        raise ToolError(str(error)) from None


def _class_number(subject: VisionSubject, name: str) -> int:
    """A class by its label, one of the label's synonyms, or its number."""
    for number, label in enumerate(subject.labels):
        if name.casefold() in (part.strip().casefold() for part in (label, *label.split(","))):
            return number
    if name.isdecimal() and int(name) < subject.n_classes:
        return int(name)
    raise ToolError(
        f"classes: {name!r} is no class of subject {subject.identity.name!r}; give a label or a "
        f"number of 0..{subject.n_classes - 1}"
    )


def _labelled(context: ToolContext, images: ImageSet) -> tuple[_Shown, bool, int]:
    """The images that decode with their right answers; whether those are the folder's labels; and
    how many did not decode.
    """
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
        return _Shown(stacked, _answers(subject, stacked, {})), False, n_failed
    return _Shown(stacked, numbers), True, n_failed


def _numbers(
    subject: VisionSubject, labels: Sequence[str | None]
) -> Int64[ndarray, " images"] | None:
    """The labels as the subject's classes; None unless each of them is one."""
    try:
        known = {label: _class_number(subject, label or "") for label in set(labels)}
    except ToolError:
        return None
    return np.array([known[label] for label in labels], dtype=np.int64)


def _answers(
    subject: VisionSubject,
    views: UInt8[ndarray, "images h w 3"],
    ablate: Mapping[int, Sequence[int]],
) -> Int64[ndarray, " images"]:
    parts = [
        subject.logits(subject.pixels(views[start : start + _BATCH]), ablate).argmax(dim=1)
        for start in range(0, len(views), _BATCH)
    ]
    return np.concatenate([part.cpu().numpy() for part in parts])


def _right(
    subject: VisionSubject,
    shown: _Shown,
    rows: ndarray,
    ablate: Mapping[int, Sequence[int]],
) -> Float[ndarray, " rows"]:
    """1 for each image whose class the subject names, else 0."""
    answers = _answers(subject, shown.views[rows], ablate)
    return np.asarray(answers == shown.classes[rows], dtype=np.float64)


def _some(rows: ndarray, most: int, seed: int) -> ndarray:
    """At most so many of the rows, drawn at random."""
    return np.sort(np.random.default_rng([seed, 15]).permutation(rows)[:most])


def _matched_sets(
    context: ToolContext, images: ImageSet, layer: int, units: Sequence[int], count: int
) -> list[tuple[int, ...]]:
    """Sets of other channels, each matched to one that is ablated by how often and how strongly
    it is active.
    """
    found = collect(context, images, [layer])
    ranks = np.stack(
        [np.argsort(np.argsort(each)) for each in (found.density(layer), found.highest(layer))]
    )
    generator = np.random.default_rng([context.seed, 16, layer])
    free = np.array([unit for unit in range(ranks.shape[1]) if unit not in units])
    size = max(_POOL, 2 * len(units), count)
    pools = []
    for unit in units:
        distance = np.hypot(*(ranks[:, free] - ranks[:, [unit]]))
        pools.append(free[np.argsort(distance, kind="stable")])
    sets: list[tuple[int, ...]] = []
    for _ in range(count):
        chosen: list[int] = []
        for pool in pools:
            near = [int(unit) for unit in pool if unit not in chosen][:size]
            chosen.append(int(generator.choice(near)))
        sets.append(tuple(chosen))
    return sets


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


def _caveats(n: int, *, by_label: bool) -> tuple[str, ...]:
    caveats = ["Channels are set to zero in one layer: later layers may make up for them."]
    if not by_label:
        caveats.append(
            "The images carry no class of this subject: its own answers before the ablation count "
            "as right, so accuracy before it is 1."
        )
    if n < _FEW:
        caveats.append(f"Only {n} images stand behind the interval.")
    return tuple(caveats)
