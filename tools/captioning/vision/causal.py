"""Causal check of vision units: do they do to the answers what their captions lead one to expect?

As on the language side (`captioning/causal.py`): the unit is changed on held-out images that took
no part in finding the caption, and the subject's answers are watched.

- *ablation*: on images in which it is active, its map is set to zero;
- *amplification* (full effort): on silent images its maps of exemplars are laid over its own.

The target is the probability of the classes that the caption *names*, or, where it names none that
the subject knows, of the fewest classes that half of the unit's *exemplars* are taken for. An
effect is by how many nats the unit makes its target likelier. The control is exact: other units of
the layer, nearest in how strongly they are active, are moved by as much at the same places. The
test is two-sided, and the p-value is the rank of the unit's effect among the matched units', by
size. The language side's second control, of other targets, is left out: channels seldom act on
classes that they have nothing to do with (docs/decisions/0010).
"""

from collections import Counter
from collections.abc import Sequence
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from pydantic import JsonValue
from torch import Tensor

from dragoman.core.records import JsonObject, Measurement
from dragoman.tools.captioning.causal import MIN_CONTEXTS
from dragoman.tools.captioning.causal_effects import Effects
from dragoman.tools.captioning.vision.ablation import classes_of
from dragoman.tools.captioning.vision.bench import VisionBench
from dragoman.tools.captioning.vision.captioner import Chosen
from dragoman.tools.captioning.vision.concepts import (
    Both,
    Concept,
    Either,
    OfClass,
    Somewhere,
    Thing,
)
from dragoman.tools.captioning.vision.labels import kinds
from dragoman.tools.captioning.vision.scores import VisionAssessment
from dragoman.tools.context import ToolContext
from dragoman.tools.registry import Effort
from dragoman.tools.subjects.vision_resuming import starting_at

Target: TypeAlias = Literal["named", "exemplars"]

N_MATCHED: dict[Effort, int] = {"quick": 19, "full": 39}
"""With nineteen, an effect that none exceeds has p = 1/20."""
_IMAGES: dict[Effort, int] = {"quick": 8, "full": 16}
_BATCH = 8


class VisionCauses(NamedTuple):
    """What the check of one unit found."""

    effect: Measurement
    """Metric `causal_effect`."""
    controls: tuple[Measurement, ...]
    output: JsonObject


class VisionCausalCheck:
    """The check for the units of a bench."""

    def __init__(self, context: ToolContext, bench: VisionBench, *, effort: Effort) -> None:
        self._context, self._bench, self._effort = context, bench, effort
        self._subject = context.vision

    def check(self, column: int, concept: Concept) -> VisionCauses | None:
        """`causal_effect` of the bench's unit number `column`; None with too few images."""
        bench, captioner = self._bench, self._bench.captioner
        active = captioner.active_images(captioner.held_out, column)
        shown = self._some(captioner.held_out.images[active])
        if len(shown) < MIN_CONTEXTS:
            return None
        unit, scope = bench.units[column], f"unit {bench.unit_names[column]}"
        exemplars = [image for image, _ in captioner.exemplars(column)]
        target: Target = "named"
        classes = classes_of(self._subject, named(concept))
        if not classes:
            target, classes = "exemplars", self._classes_of_half(exemplars)
        matched = self._matched(unit)
        ablated = self._effects(shown, unit, matched, classes, None)
        made = [ablated.measurement("causal_effect", scope, self._context.seed)]
        told: dict[str, JsonValue] = {"causal_effect": ablated.output}
        silent = self._some(captioner.held_out.images[~active])
        if self._effort == "full" and len(silent) >= MIN_CONTEXTS:
            raised = self._effects(silent, unit, matched, classes, exemplars)
            metric = "causal_effect_amplify"
            made.append(raised.measurement(metric, scope, self._context.seed))
            told[metric] = raised.output
        output: JsonObject = {
            "target": target,
            "n_target_classes": len(classes),
            "n_matched": len(matched),
            **told,
        }
        return VisionCauses(made[0], tuple(made[1:]), output)

    def _some(self, images: ndarray) -> list[int]:
        """At most so many of the images, spread over them."""
        limit = _IMAGES[self._effort]
        if len(images) > limit:
            images = images[np.linspace(0, len(images) - 1, limit).astype(int)]
        return [int(image) for image in images]

    def _pixels(self, images: Sequence[int]) -> Float[Tensor, "batch 3 h w"]:
        views = [self._subject.view(self._bench.images.load(image)) for image in images]
        return self._subject.pixels(np.stack(views))

    def _classes_of_half(self, images: Sequence[int]) -> list[int]:
        """The fewest classes that the subject's answers to half of the images are."""
        answers = self._subject.logits(self._pixels(images)).argmax(dim=1).tolist()
        classes: list[int] = []
        covered = 0
        for number, count in Counter(answers).most_common():
            if 2 * covered >= len(answers):
                break
            classes.append(number)
            covered += count
        return classes

    def _matched(self, unit: int) -> list[int]:
        """The other units of the layer, nearest in how strongly they are active first."""
        peaks = self._bench.captioner.own_peaks
        ranks = np.stack([each.argsort().argsort() for each in (peaks.mean(0), peaks.max(0))])
        distance = np.abs(ranks - ranks[:, [unit]]).sum(axis=0)
        order = [int(row) for row in np.argsort(distance, kind="stable") if row != unit]
        return order[: N_MATCHED[self._effort]]

    def _effects(
        self,
        images: Sequence[int],
        unit: int,
        matched: Sequence[int],
        classes: Sequence[int],
        exemplars: Sequence[int] | None,
    ) -> Effects:
        """Effects of taking the unit's own map away, or, with `exemplars`, of adding theirs."""
        subject, layer = self._subject, self._bench.layer
        own, others = [], []
        added = None
        if exemplars is not None:
            added = subject.maps(self._pixels(exemplars), [layer])[layer][:, unit]
        for start in range(0, len(images), _BATCH):
            self._context.step(start, len(images), f"checking what unit {layer}.{unit} causes")
            pixels = self._pixels(images[start : start + _BATCH])
            with starting_at(subject, layer, pixels):
                change = -subject.maps(pixels, [layer])[layer][:, unit]
                if added is not None:
                    change = added[[at % len(added) for at in range(len(pixels))]]
                clean = self._log_probability(subject.logits(pixels), classes)
                moved = np.stack(
                    [
                        self._log_probability(
                            subject.moved_logits(pixels, layer, each, change), classes
                        )
                        for each in (unit, *matched)
                    ]
                )
            # Adding a map does what taking it away undoes.
            lost = clean - moved if added is None else moved - clean
            own.append(lost[0])
            others.append(lost[1:])
        return Effects(np.concatenate(own), np.concatenate(others, axis=1))

    @staticmethod
    def _log_probability(logits: Tensor, classes: Sequence[int]) -> Float[ndarray, " batch"]:
        log_probs = logits.double().log_softmax(dim=1)
        found: ndarray = torch.logsumexp(log_probs[:, list(classes)], dim=1).cpu().numpy()
        return found


def with_causes(
    context: ToolContext,
    bench: VisionBench,
    chosen: Sequence[Chosen | None],
    found: Sequence[VisionAssessment | None],
    *,
    effort: Effort,
) -> list[VisionAssessment | None]:
    """The assessments, those of captions that hold with what their units cause."""
    check = VisionCausalCheck(context, bench, effort=effort)
    joined: list[VisionAssessment | None] = []
    for column, (each, scored) in enumerate(zip(chosen, found, strict=True)):
        if each is not None and scored is not None and scored.holds:
            causes = check.check(column, each.candidate.concept)
            if causes is not None:
                scored = scored._replace(
                    measurements=(*scored.measurements, causes.effect),
                    controls=(*scored.controls, *causes.controls),
                    causes=causes.output,
                )
        joined.append(scored)
    return joined


def named(concept: Concept) -> set[int]:
    """The classes of ImageNet that a caption says are there; what it denies does not count."""
    match concept:
        case OfClass():
            return {concept.index}
        case Thing():
            return set(kinds()[concept.name].classes)
        case Somewhere():
            return named(concept.of)
        case Both(of=parts) | Either(of=parts):
            return set[int]().union(*(named(part) for part in parts))
        case _:
            return set()
