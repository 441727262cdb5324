"""Which facts of a relation are for what, what the subject knows of them, and the map from them."""

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from dragoman.core.errors import ToolError
from dragoman.tools.circuits.approximation import Estimate, estimate_from
from dragoman.tools.circuits.controls import Part
from dragoman.tools.circuits.faithfulness import Decoded, decode, first_tokens, hits
from dragoman.tools.circuits.passes import Readout, SharedPrompts
from dragoman.tools.circuits.prompts import (
    deal,
    leave_one_out,
    relation_prompt,
    round_robin,
)
from dragoman.tools.registry import Effort
from dragoman.tools.relations import Relation, Sample
from dragoman.tools.subjects.language import LanguageSubject

Step: TypeAlias = Callable[[int, int, str], None]

VALIDATION_SHARE = 0.4
MINIMUM_KNOWN_VALIDATION = 3
MINIMUM_KNOWN_TEST = 5
"""Below these a layer is chosen by luck, and an interval spans most of what is possible."""
MINIMUM_OBJECTS = 2
"""Among the known test facts: one object is named by any constant answer."""


class Plan(NamedTuple):
    """How much is spent."""

    n_estimation: int
    max_held: int
    """Validation and test facts together."""
    editing_stride: int
    """Every how many layers an edit is tried."""
    rival_stride: int
    """Every how many layers a rival of the map is tried."""
    ranks: tuple[int, ...]
    max_validation_pairs: int
    n_seeds: int = 1
    """Splits of the facts, each with Jacobians of its own."""


PLANS: dict[Effort, Plan] = {
    "quick": Plan(5, 40, 3, 3, (16, 32, 64, 128), 8),
    "full": Plan(8, 120, 3, 2, (8, 16, 32, 64, 96, 128, 192, 256), 16, n_seeds=5),
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

    def part(self, indices: Sequence[int]) -> Part:
        """The facts at `indices`, with what the subject holds at them."""
        places = list(indices)
        readout = self.readout
        return Part(
            self.of(places),
            readout.entity[:, places],
            readout.embedding[places],
            readout.final[places],
            self.first[places],
        )

    @property
    def objects(self) -> list[str]:
        """Every object among the facts that take part."""
        return [each.object for each in (*self.estimation, *self.samples)]

    @property
    def estimation_known(self) -> list[bool]:
        """Whether the subject knows each estimation fact, after the others."""
        return hits(self.estimation_said, self.estimation)

    @property
    def judgeable(self) -> bool:
        """Whether enough facts are known to choose settings and to report what they do."""
        return not self.lacking

    @property
    def lacking(self) -> str:
        """Why nothing can be judged, with the n; empty where it can."""
        validation, test = self.known_among(self.validation), self.known_among(self.test)
        if len(validation) < MINIMUM_KNOWN_VALIDATION or len(test) < MINIMUM_KNOWN_TEST:
            return (
                f"{len(test)} known of {len(self.test)} test facts and {len(validation)} of "
                f"{len(self.validation)} validation facts; at least {MINIMUM_KNOWN_TEST} and "
                f"{MINIMUM_KNOWN_VALIDATION} are needed"
            )
        if len({self.samples[place].object.casefold() for place in test}) < MINIMUM_OBJECTS:
            return (
                f"all {len(test)} known test facts have the object "
                f"{self.samples[test[0]].object!r}; at least {MINIMUM_OBJECTS} different ones "
                "are needed"
            )
        if len({int(self.first[place]) for place in test}) < MINIMUM_OBJECTS:
            return (
                f"the objects of all {len(test)} known test facts begin with the same token, so no "
                "answer tells them apart"
            )
        return ""


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
    readout = prompts.read(keep=True)
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

    `ToolError` for one at which there is no map.
    """
    if layer is None:
        return list(range(max(1, subject.n_layers - 1)))
    check_map_layer(subject, layer)
    return [layer]


def check_map_layer(subject: LanguageSubject, layer: int) -> None:
    """`ToolError` unless there is such a layer, below the last.

    After the last block nothing moves from token to token, so there is no relation left to find.
    """
    subject.check_layer(layer)
    if layer == subject.n_layers - 1 and subject.n_layers > 1:
        raise ToolError(
            f"layer {layer} is the last: nothing moves from token to token after it; "
            f"choose one of 0..{subject.n_layers - 2}"
        )


def fit(
    subject: LanguageSubject,
    template: str,
    estimation: Sequence[Sample],
    layers: Sequence[int],
    step: Step,
    *,
    embedding: bool = False,
) -> Estimate:
    """The relation's map at each of `layers` (ascending)."""
    prompts = leave_one_out(template, estimation)
    total = len(prompts) * subject.d_model
    return estimate_from(
        subject,
        prompts,
        layers,
        embedding=embedding,
        on_row=lambda place, row: step(
            place * subject.d_model + row, total, f"Jacobians of {len(layers)} layers, by rows"
        ),
    )
