"""One relation on one subject: which facts are for what, the map from them, and how it does."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from dragoman.tools.circuits.approximation import Estimate, Inverse, estimate, invert
from dragoman.tools.circuits.causality import Bench, Edited, Pairs, pair_up, random_like
from dragoman.tools.circuits.controls import Control, reading_controls
from dragoman.tools.circuits.faithfulness import Decoded, decode, first_tokens, hits
from dragoman.tools.circuits.jacobian import Expansion, expand
from dragoman.tools.circuits.passes import Readout, SharedPrompts
from dragoman.tools.circuits.prompts import (
    deal,
    leave_one_out,
    relation_prompt,
    round_robin,
)
from dragoman.tools.circuits.selection import Setting, choose, sweep_editing, sweep_reading
from dragoman.tools.registry import Effort
from dragoman.tools.relations import Relation, Sample
from dragoman.tools.subjects.language import LanguageSubject

Step: TypeAlias = Callable[[int, int, str], None]

VALIDATION_SHARE = 0.4
MINIMUM_KNOWN_VALIDATION = 3
MINIMUM_KNOWN_TEST = 5
"""Below these a layer is chosen by luck, and an interval spans most of what is possible."""


class Plan(NamedTuple):
    """How much is spent."""

    n_estimation: int
    max_held: int
    """Validation and test facts together."""
    editing_stride: int
    """Every how many layers an edit is tried."""
    ranks: tuple[int, ...]
    max_validation_pairs: int


PLANS: dict[Effort, Plan] = {
    "quick": Plan(5, 40, 3, (16, 32, 64, 128), 8),
    "full": Plan(8, 120, 2, (8, 16, 32, 64, 96, 128, 192, 256), 16),
}


class Asked(NamedTuple):
    """Facts asked after the same examples."""

    prompts: SharedPrompts
    readout: Readout
    first: Tensor
    """First token of each object."""
    said: Decoded
    """What the subject says."""


class Facts(NamedTuple):
    """All facts that take part, and what the subject knows of them."""

    estimation: list[Sample]
    estimation_said: list[str]
    """What the subject says of each estimation fact after the others."""
    samples: list[Sample]
    """The facts kept from estimation; what follows is about them, asked after the former."""
    prompts: SharedPrompts
    readout: Readout
    first: Tensor
    said: Decoded
    known: list[bool]
    validation: list[int]
    test: list[int]

    def known_among(self, part: Sequence[int]) -> list[int]:
        """Those of `part` that the subject knows."""
        return [index for index in part if self.known[index]]

    def of(self, indices: Sequence[int]) -> list[Sample]:
        """The facts at `indices`."""
        return [self.samples[index] for index in indices]

    @property
    def estimation_known(self) -> list[bool]:
        """Whether the subject knows each estimation fact, after the others."""
        return hits(self.estimation_said, self.estimation)

    @property
    def judgeable(self) -> bool:
        """Whether enough facts are known to choose settings and to report what they do."""
        return (
            len(self.known_among(self.validation)) >= MINIMUM_KNOWN_VALIDATION
            and len(self.known_among(self.test)) >= MINIMUM_KNOWN_TEST
        )


class Faithfulness(NamedTuple):
    """How the map reads the known test facts."""

    sweep: list[Setting]
    chosen: Setting
    answers: Decoded
    hits: list[bool]
    controls: list[Control]


class Causality(NamedTuple):
    """How edits through the map's inverse do on the known test facts."""

    sweep: list[Setting]
    chosen: Setting
    inverse: Inverse
    pairs: Pairs
    edited: Edited
    random: Edited
    swapped: Edited


def gather_facts(subject: LanguageSubject, relation: Relation, plan: Plan, seed: int) -> Facts:
    """Choose estimation facts that the subject knows, ask it all others, and deal those.

    Every fact is asked twice: first after the first facts that come, to see which are known; then
    after the estimation facts, which were chosen among those. At most a third of the known facts
    go to estimation, so that a small relation keeps some to be tested on.
    """
    template = relation.prompt_templates[0]
    ordered = round_robin(relation.samples, seed)[: plan.n_estimation + plan.max_held]
    n_first = max(2, min(plan.n_estimation, len(ordered) // 3))
    guesses = _say_all_but_own(subject, template, ordered[:n_first])
    guesses += _ask(subject, template, ordered[:n_first], ordered[n_first:]).said.texts
    guessed = hits(guesses, ordered)
    n_estimation = max(2, min(n_first, sum(guessed) // 3))
    places = sorted(range(len(ordered)), key=lambda place: not guessed[place])
    estimation = [ordered[place] for place in places[:n_estimation]]
    samples = [ordered[place] for place in sorted(places[n_estimation:])]

    asked = _ask(subject, template, estimation, samples)
    known = hits(asked.said.texts, samples)
    estimation_said = _say_all_but_own(subject, template, estimation)
    validation, test = deal(samples, known, VALIDATION_SHARE, seed)
    return Facts(estimation, estimation_said, samples, *asked, known, validation, test)


def _ask(
    subject: LanguageSubject, template: str, examples: Sequence[Sample], samples: Sequence[Sample]
) -> Asked:
    prompts = SharedPrompts(
        subject, [relation_prompt(template, examples, each.subject) for each in samples]
    )
    readout = prompts.read()
    first = first_tokens(subject, samples)
    return Asked(prompts, readout, first, decode(subject, readout.final, first))


def _say_all_but_own(
    subject: LanguageSubject, template: str, samples: Sequence[Sample]
) -> list[str]:
    """What the subject says of each fact after the others."""
    finals = torch.cat(
        [
            SharedPrompts(subject, [prompt]).read().final
            for prompt in leave_one_out(template, samples)
        ]
    )
    return decode(subject, finals, first_tokens(subject, samples)).texts


def candidate_layers(subject: LanguageSubject, layer: int | None) -> list[int]:
    """The layers that are tried: the one asked for, or all below the last block.

    After the last block nothing moves from token to token, so there is no relation left to find.
    """
    return list(range(max(1, subject.n_layers - 1))) if layer is None else [layer]


def fit(
    subject: LanguageSubject,
    template: str,
    estimation: Sequence[Sample],
    layers: Sequence[int],
    step: Step,
) -> Estimate:
    """The relation's map at each of `layers` (ascending, without gaps)."""
    prompts = leave_one_out(template, estimation)
    total = len(prompts) * subject.d_model

    def expansions() -> Iterator[Expansion]:
        for place, prompt in enumerate(prompts):

            def show(row: int, before: int = place * subject.d_model) -> None:
                step(before + row, total, f"Jacobians of {len(layers)} layers, by rows")

            yield expand(subject, prompt, first_layer=layers[0], last_layer=layers[-1], on_row=show)

    return estimate(expansions(), layers)


def judge_faithfulness(
    subject: LanguageSubject, facts: Facts, fitted: Estimate, step: Step
) -> Faithfulness:
    """Choose layer and beta on known validation facts; read the known test facts with them."""
    chosen_on = facts.known_among(facts.validation)
    tested = facts.known_among(facts.test)
    sweep = sweep_reading(
        subject,
        fitted.maps,
        facts.readout.entity[:, chosen_on],
        facts.of(chosen_on),
        facts.first[chosen_on],
        lambda layer: step(0, 0, f"reading at layer {layer}"),
    )
    chosen = choose(sweep)
    relation_map = fitted.maps[chosen.layer]
    entity = facts.readout.entity[chosen.layer, tested]
    answers = decode(subject, relation_map(entity, chosen.value), facts.first[tested])
    controls = reading_controls(
        subject,
        relation_map,
        fitted.translations[chosen.layer],
        entity,
        answers.texts,
        facts.of(tested),
        others=[*facts.estimation, *facts.of(facts.validation)],
    )
    return Faithfulness(sweep, chosen, answers, hits(answers.texts, facts.of(tested)), controls)


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
    inverse = invert(maps[chosen.layer])
    shifts = inverse.shift(bench.changes(pairs), int(chosen.value))
    return Causality(
        sweep,
        chosen,
        inverse,
        pairs,
        edited=bench.edit(pairs, chosen.layer, shifts),
        random=bench.edit(pairs, chosen.layer, random_like(shifts, seed)),
        swapped=bench.edit(pairs, chosen.layer, bench.swaps(pairs, chosen.layer)),
    )
