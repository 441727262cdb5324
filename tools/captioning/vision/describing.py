"""The best caption for each unit of a bench: all proposers' candidates, one choice.

The concept search, in whose concepts the embedded labeller's classes and kinds take part, proposes
for every unit. Further proposers give captions in words; what they say takes part as far as it can
be checked, and what cannot be counts as failed.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple, Protocol

from dragoman.core.records import JsonObject
from dragoman.tools.captioning.vision.bench import VisionBench
from dragoman.tools.captioning.vision.captioner import TAU, Candidate, Chosen, VisionCaptioner
from dragoman.tools.captioning.vision.reading import read
from dragoman.tools.context import ToolContext


class Suggestions(NamedTuple):
    """What a proposer says of some units."""

    captions: list[tuple[str, ...]]
    """One entry a unit, in the order asked; empty where it said nothing."""
    n_calls: int = 0
    n_cached: int = 0
    n_failed: int = 0
    """Calls and replies that came to nothing."""


class Proposer(Protocol):
    """Describes units in words from their masked exemplars."""

    @property
    def name(self) -> str:
        """Who proposes, as it stands beside a caption."""
        ...

    def suggest(
        self, context: ToolContext, bench: VisionBench, units: Sequence[int]
    ) -> Suggestions:
        """Captions for requested units, by their numbers in the bench."""
        ...


class VisionChoices(NamedTuple):
    """What was chosen for each unit, and what its proposers cost."""

    chosen: list[Chosen | None]
    cost: JsonObject
    n_failed: int
    """Captions and replies of further proposers that came to nothing."""
    replies_per_unit: Mapping[str, float] = MappingProxyType({})
    """Of each further proposer, cached ones counted: the same in a run that was stopped."""


def choose_all(
    context: ToolContext,
    bench: VisionBench,
    *,
    pmi: bool = True,
    proposers: Sequence[Proposer] = (),
) -> VisionChoices:
    """For each requested unit the best candidate of all proposers.

    Without `pmi` the term -tau log p(d) is left out, so that common phrases win.
    """
    proposed, cost, n_failed = propose_all(context, bench, proposers)
    replies = {name: each["replies_per_unit"] for name, each in cost.items()}
    told: JsonObject = {name: {**each} for name, each in cost.items()}
    return VisionChoices(best_of(bench.captioner, proposed, pmi=pmi), told, n_failed, replies)


def propose_all(
    context: ToolContext, bench: VisionBench, proposers: Sequence[Proposer] = ()
) -> tuple[list[list[Candidate]], dict[str, dict[str, float]], int]:
    """Candidates for each requested unit; what further proposers cost, and how often they fail."""
    names = bench.unit_names
    proposed: list[list[Candidate]] = []
    for unit, name in enumerate(names):
        context.step(unit, len(names), f"describing unit {name}")
        dead = bench.captioner.dead(unit)
        proposed.append([] if dead else bench.captioner.propose(unit))
    cost: dict[str, dict[str, float]] = {}
    n_failed = 0
    asked = [unit for unit, candidates in enumerate(proposed) if candidates]
    for proposer in proposers:
        found = proposer.suggest(context, bench, asked)
        n_failed += found.n_failed
        for unit, captions in zip(asked, found.captions, strict=True):
            for caption in captions:
                concept = read(caption)
                if concept is None:
                    n_failed += 1
                else:
                    proposed[unit].append(Candidate(caption, concept, proposer.name))
        cost[proposer.name] = {
            "calls": found.n_calls,
            "from_cache": found.n_cached,
            "calls_per_unit": round(found.n_calls / max(len(asked), 1), 4),
            "replies_per_unit": round((found.n_calls + found.n_cached) / max(len(asked), 1), 4),
        }
    return proposed, cost, n_failed


def choose_twin(bench: VisionBench, *, pmi: bool = True) -> list[Chosen | None] | None:
    """The same for the twin, without further proposers; None where there is no twin."""
    twin = bench.twin
    if twin is None:
        return None
    proposed = [[] if twin.dead(unit) else twin.propose(unit) for unit in range(len(bench.units))]
    return best_of(twin, proposed, pmi=pmi)


def best_of(
    captioner: VisionCaptioner, proposed: Sequence[Sequence[Candidate]], *, pmi: bool
) -> list[Chosen | None]:
    """The best of each unit's candidates, by pointwise mutual information or without it."""
    tau = TAU if pmi else 0.0
    return [
        captioner.choose(unit, _distinct(candidates), tau)
        for unit, candidates in enumerate(proposed)
    ]


def _distinct(candidates: Sequence[Candidate]) -> list[Candidate]:
    """One candidate a concept: who says again what the search found has found nothing."""
    seen: dict[str, Candidate] = {}
    for candidate in candidates:
        seen.setdefault(candidate.concept.model_dump_json(), candidate)
    return list(seen.values())
