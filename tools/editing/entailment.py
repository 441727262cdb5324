"""Entailment: does an added property bring what it implies?

After REMEDI (Hernandez, Li & Andreas 2023, section 6). An entity is made a thing of another kind by
an edit; the log-probability of each full property after the entity ("The zebra" + "has feathers")
is read before and after. Its shift is correlated with the stated implication: 1 for what the new
kind always implies, 3/4 for what it usually implies, 0 for unrelated properties. Properties that
the old kind implies as well are left out: there is nothing to be brought.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from dragoman.core.records import Measurement
from dragoman.tools.editing.detection.editors import DirectionEditor
from dragoman.tools.editing.detection.measuring import resamples
from dragoman.tools.editing.editor import edit_at_entity
from dragoman.tools.editing.properties import Properties
from dragoman.tools.editing.records import EditRecord, Prompt
from dragoman.tools.statistics import Floats, Interval
from dragoman.tools.subjects.language import LanguageSubject

STRENGTH = {"always": 1.0, "usually": 0.75}
EDITED = "edited"
RANDOM = "random direction of equal norm"
OTHER_KIND = "the implications of a kind that the entity neither was nor becomes"
_AT_ONCE = 48
_RESAMPLES = 500


class Pair(NamedTuple):
    """One property of one edit."""

    record: int
    text: str
    implication: float
    """As stated: 1 always, 3/4 usually, 0 unrelated."""


class Shifts(NamedTuple):
    """Of the log-probability of each pair's full property, in nats."""

    pairs: tuple[Pair, ...]
    groups: tuple[str, ...]
    """Each pair's entity."""
    shift: Floats
    random: Floats


def implied_pairs(
    properties: Properties, records: Sequence[EditRecord], *, of_another_kind: bool = False
) -> list[Pair]:
    """Implied and unrelated properties of each record's new kind (or of a third kind)."""
    kinds = tuple(properties.implications)
    pairs: list[Pair] = []
    for index, record in enumerate(records):
        kind = record.new_object
        if of_another_kind:
            rest = [name for name in kinds if name not in (record.new_object, record.old_object)]
            kind = rest[index % len(rest)]
        mine = properties.implications[kind]
        told = {each.text for each in properties.implications[record.old_object].implied}
        if of_another_kind:
            new = properties.implications[record.new_object].implied
            told |= {each.text for each in new}
        pairs += [
            Pair(index, each.text, STRENGTH[each.strength])
            for each in mine.implied
            if each.text not in told
        ]
        pairs += [Pair(index, text, 0.0) for text in mine.unrelated]
    return pairs


@torch.no_grad()
def measure_shifts(
    subject: LanguageSubject,
    editor: DirectionEditor,
    records: Sequence[EditRecord],
    pairs: Sequence[Pair],
    seed: int,
    step: Callable[[int, int, str], None],
) -> Shifts:
    """Read every property without an edit, with it, and with a random direction."""
    directions = editor.directions(subject, records)
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(directions.shape, generator=generator).to(directions)
    noise = noise / noise.norm(dim=1, keepdim=True) * directions.norm(dim=1, keepdim=True)
    rows = [pair.record for pair in pairs]
    nothing = torch.zeros_like(directions)
    found = []
    for done, vectors in enumerate((nothing, directions, noise)):
        step(done, 3, "reading properties")
        found.append(property_log_probs(subject, records, pairs, editor.layer, vectors[rows]))
    return Shifts(
        tuple(pairs),
        tuple(records[pair.record].entity for pair in pairs),
        found[1] - found[0],
        found[2] - found[0],
    )


@torch.no_grad()
def property_log_probs(
    subject: LanguageSubject,
    records: Sequence[EditRecord],
    pairs: Sequence[Pair],
    layer: int,
    directions: Float[Tensor, "pair d_model"],
) -> Floats:
    """Log-probability of each pair's property after its entity, all tokens of it, in nats."""
    found = np.empty(len(pairs))
    for start in range(0, len(pairs), _AT_ONCE):
        some = pairs[start : start + _AT_ONCE]
        entities = [records[pair.record].entity for pair in some]
        texts = [f"{entity} {pair.text}" for entity, pair in zip(entities, some, strict=True)]
        prompts = [Prompt(text, len(entity)) for text, entity in zip(texts, entities, strict=True)]
        edit = edit_at_entity(subject, prompts, layer, directions[start : start + len(some)])
        batch = subject.batch(texts)
        log_probs = subject.all_logits(batch, [edit]).log_softmax(-1)
        for row, (text, entity) in enumerate(zip(texts, entities, strict=True)):
            first, last = subject.token_span(text, len(entity) + 1, len(text))
            ids = batch.ids[row, first:] if last == -1 else batch.ids[row, first : last + 1]
            before = log_probs[row, first - 1 : last]
            found[start + row] = float(before.gather(1, ids[:, None]).sum())
    return found


def measure_entailment(
    shifts: Shifts, elsewhere: Shifts, seed: int
) -> tuple[list[Measurement], list[Measurement]]:
    """`entailment_correlation` and the mean shift of what is implied; then the controls."""
    stated = np.array([pair.implication for pair in shifts.pairs])
    drawn = resamples(shifts.groups, seed, _RESAMPLES)
    value = correlation(stated, shifts.shift)
    control = correlation(stated, shifts.random)
    measured = [
        Measurement(
            metric="entailment_correlation",
            value=value,
            unit="correlation",
            baseline=control,
            control=RANDOM,
            ci95=_interval(stated, shifts.shift, drawn, value),
            n=len(set(shifts.groups)),
            baseline_ci95=_interval(stated, shifts.random, drawn, control),
        ),
        _lead("implied_shift_above_unrelated", shifts, shifts.shift, drawn),
    ]
    third = np.array([pair.implication for pair in elsewhere.pairs])
    again = resamples(elsewhere.groups, seed, _RESAMPLES)
    other = correlation(third, elsewhere.shift)
    controls = [
        Measurement(
            metric="entailment_correlation",
            value=other,
            unit="correlation",
            baseline=correlation(third, elsewhere.random),
            control=RANDOM,
            ci95=_interval(third, elsewhere.shift, again, other),
            n=len(set(elsewhere.groups)),
            scope=OTHER_KIND,
        )
    ]
    return measured, controls


def correlation(stated: Floats, shift: Floats) -> float:
    """Pearson's r; 0 where either side is constant."""
    if stated.std() < 1e-12 or shift.std() < 1e-12:
        return 0.0
    return float(np.corrcoef(stated, shift)[0, 1])


def _lead(
    metric: str, shifts: Shifts, shift: Floats, drawn: Sequence[Sequence[int]]
) -> Measurement:
    """Mean shift of implied properties minus that of unrelated ones, in nats."""
    implied = np.array([pair.implication > 0 for pair in shifts.pairs])

    def of(values: Floats, rows: Sequence[int]) -> float:
        at = np.asarray(rows)
        some = at[implied[at]]
        rest = at[~implied[at]]
        return float(values[some].mean() - values[rest].mean())

    every = list(range(len(shift)))
    value, random = of(shift, every), of(shifts.random, every)
    samples = [of(shift, rows) for rows in drawn]
    low, high = np.quantile(samples, [0.025, 0.975])
    return Measurement(
        metric=metric,
        value=value,
        unit="nat",
        baseline=random,
        control=RANDOM,
        ci95=(min(float(low), value), max(float(high), value)),
        n=len(set(shifts.groups)),
    )


def _interval(
    stated: Floats, shift: Floats, drawn: Sequence[Sequence[int]], value: float
) -> Interval:
    samples = [correlation(stated[list(rows)], shift[list(rows)]) for rows in drawn]
    low, high = (float(edge) for edge in np.quantile(samples, [0.025, 0.975]))
    return Interval(min(low, value), max(high, value))
