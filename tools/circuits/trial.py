"""One split of a relation's facts, judged: how its map reads, and what edits through it do.

A *trial* is one split: its own estimation facts, so its own Jacobians, its own settings and its own
test facts. Trials of one relation share the subject and nothing else.
"""

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

from dragoman.tools.circuits.approximation import Estimate, Inverse, invert
from dragoman.tools.circuits.causality import Bench, Edited, Pairs, pair_up, random_like
from dragoman.tools.circuits.controls import Control, reading_controls, twin_control
from dragoman.tools.circuits.faithfulness import Decoded, decode, hits, recalled, whole_hits
from dragoman.tools.circuits.selection import (
    Setting,
    best_swap,
    choose,
    sweep_editing,
    sweep_reading,
)
from dragoman.tools.circuits.study import (
    MINIMUM_KNOWN_TEST,
    Facts,
    Plan,
    Step,
    candidate_layers,
    fit,
    gather_facts,
)
from dragoman.tools.circuits.twin import twin_answers
from dragoman.tools.relations import Relation
from dragoman.tools.subjects.language import LanguageSubject

RANDOM = "random direction of equal norm"
SWAPPED_H = "whole h of the target"
SWAPPED_Z = "z of the target in place of h"
SWAPPED_WORD = "embedding of the target's object"
CUT = "inverse cut at a rank, as published"
BESIDE = (SWAPPED_H, CUT)
"""Shown beside the edit's controls and none of them: what an edit there can do without a map, and
the same map's inverse in the published form."""


class Faithfulness(NamedTuple):
    """How the map reads the known test facts."""

    sweep: list[Setting]
    chosen: Setting
    answers: Decoded
    hits: list[bool]
    whole_hits: list[bool]
    """By the stricter rule: its answer is the object and could be no other of the relation."""
    recalled: dict[int, list[bool]]
    """recall@k."""
    controls: list[Control]


class Causality(NamedTuple):
    """How edits through the map's inverse do on the known test facts."""

    sweep: list[Setting]
    chosen: Setting
    inverse: Inverse
    pairs: Pairs
    edited: Edited
    by_rank: dict[int, float]
    """The share of the same edits that succeed with other ranks at the chosen layer, in the
    chosen form."""
    rivals: dict[str, Edited]
    """Random directions, swaps that need no map, and the inverse as published, each at the layer
    that suits it best."""


class Trial(NamedTuple):
    """One split of the facts, and what came of it."""

    seed: int
    facts: Facts
    fitted: Estimate | None = None
    """None, as what follows, where too few facts are known."""
    reading: Faithfulness | None = None
    editing: Causality | None = None
    """None also where no fact has another to be turned to."""


def run_trial(
    subject: LanguageSubject,
    relation: Relation,
    plan: Plan,
    seed: int,
    step: Step,
    *,
    layer: int | None = None,
    twin: LanguageSubject | None = None,
) -> Trial:
    """One split: ask, estimate, choose on validation facts, judge on test facts."""
    step(0, 0, f"asking {len(relation.samples)} facts of {relation.name}")
    facts = gather_facts(subject, relation, plan, seed)
    if not facts.judgeable:
        return Trial(seed, facts)
    template = relation.prompt_templates[0]
    layers = candidate_layers(subject, layer)
    fitted = fit(subject, template, facts.estimation, layers, step, embedding=True)
    stride = 1 if len(layers) == 1 else plan.rival_stride
    reading = judge_faithfulness(subject, facts, fitted, step, stride=stride)
    if twin is not None:
        step(0, 0, "the same map in a network with random weights")
        tested = facts.of(facts.known_among(facts.test))
        texts = twin_answers(twin, template, facts.estimation, tested, reading.chosen)
        reading.controls.append(twin_control(texts, tested))
    editing = judge_causality(subject, facts, fitted, plan, seed, step)
    return Trial(seed, facts, fitted, reading, editing)


def judge_faithfulness(
    subject: LanguageSubject, facts: Facts, fitted: Estimate, step: Step, *, stride: int = 1
) -> Faithfulness:
    """Choose layer and beta on known validation facts; read the known test facts with them."""
    tried = facts.part(facts.known_among(facts.validation))
    tested = facts.part(facts.known_among(facts.test))
    sweep = sweep_reading(
        subject,
        fitted.maps,
        tried.entity,
        tried.samples,
        tried.first,
        lambda layer: step(0, 0, f"reading at layer {layer}"),
    )
    chosen = choose(sweep)
    relation_map = fitted.maps[chosen.layer]
    finals = relation_map(tested.entity[chosen.layer], chosen.value)
    answers = decode(subject, finals, tested.first)
    step(0, 0, "reading without the map")
    controls = reading_controls(
        subject,
        fitted,
        relation_map,
        answers.texts,
        tried,
        tested,
        others=[*facts.estimation, *facts.of(facts.validation)],
        learnt=[place for place, known in enumerate(facts.estimation_known) if known],
        stride=stride,
    )
    return Faithfulness(
        sweep,
        chosen,
        answers,
        hits(answers.texts, tested.samples),
        whole_hits(answers.texts, tested.samples, facts.objects),
        recalled(subject, finals, tested.samples),
        controls,
    )


def judge_causality(
    subject: LanguageSubject, facts: Facts, fitted: Estimate, plan: Plan, seed: int, step: Step
) -> Causality | None:
    """Choose edit layer and rank on known validation facts; edit the known test facts with them.

    None where too few facts find a target: fewer than two objects are known.
    """
    bench = Bench(subject, facts.prompts, facts.readout, facts.samples, facts.first)
    tried_on, pairs = (
        pair_up(facts.samples, facts.known_among(part), facts.said.texts, seed)
        for part in (facts.validation, facts.test)
    )
    tried_on = Pairs(*(side[: plan.max_validation_pairs] for side in tried_on))
    if not tried_on.sources or len(pairs.sources) < MINIMUM_KNOWN_TEST:
        return None
    stride = 1 if len(fitted.maps) == 1 else plan.editing_stride
    maps = dict(list(fitted.maps.items())[::stride])
    ranks = [rank for rank in plan.ranks if rank <= subject.d_model] or [subject.d_model]
    sweep = sweep_editing(
        bench, maps, tried_on, ranks, seed, lambda layer: step(0, 0, f"editing at layer {layer}")
    )
    chosen = choose(sweep)
    layer, rank = chosen.layer, int(chosen.value)
    change, inverse = bench.changes(pairs), invert(maps[layer], max(ranks))
    form = inverse.damped if chosen.damped else inverse.shifts
    shifts = dict(zip(ranks, form(change, ranks), strict=True))
    edits = {each: bench.edit(pairs, layer, shift) for each, shift in shifts.items()}
    rivals = {RANDOM: bench.edit(pairs, layer, random_like(shifts[rank], seed))}
    cut = choose([setting for setting in sweep if not setting.damped])
    published = invert(maps[cut.layer], max(ranks)).shift(change, int(cut.value))
    rivals[CUT] = bench.edit(pairs, cut.layer, published)
    swaps: dict[str, Callable[[Pairs, int], Tensor]] = {
        SWAPPED_Z: bench.z_swaps,
        SWAPPED_WORD: bench.word_swaps,
        SWAPPED_H: bench.swaps,
    }
    for name, swap in swaps.items():
        step(0, 0, f"editing without the map: {name}")
        there = best_swap(bench, list(maps), tried_on, swap).layer
        rivals[name] = bench.edit(pairs, there, swap(pairs, there))
    by_rank = {each: edited.share for each, edited in edits.items()}
    return Causality(sweep, chosen, inverse, pairs, edits[rank], by_rank, rivals)
