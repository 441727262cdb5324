"""A trial as plain numbers, fact by fact: what is kept, pooled over splits, and judged."""

from collections import Counter
from collections.abc import Sequence

from pydantic import Field

from dragoman.core.records import Record
from dragoman.tools.circuits.causality import Edited
from dragoman.tools.circuits.controls import Control
from dragoman.tools.circuits.faithfulness import expected_hits
from dragoman.tools.circuits.trial import Causality, Faithfulness, Trial
from dragoman.tools.relations import Sample

SHUFFLED_TARGETS = "shuffled targets"


class Outcomes(Record):
    """How one reader or one kind of edit did, by the subject of the fact."""

    by_fact: dict[str, float]
    """1 where it named the object or succeeded, 0 where not; or how likely that was."""
    chance: float
    """The mean that its own answers reach on permuted objects."""
    expected: bool = False
    """Whether the values are expectations over permutations, so that no fact wins or loses."""


class TrialRecord(Record):
    """One split of a relation's facts and all that was counted on it."""

    seed: int
    known: Outcomes
    """Every fact, asked after examples without its own."""
    lacking: str
    """Why the split cannot be judged, with the n; empty where it can."""
    tested: tuple[str, ...]
    """The subjects of the test facts, known or not."""
    n_objects: int
    n_sharing: int
    """Objects whose first token is that of another object as well."""
    layer: int | None = None
    beta: float | None = None
    named: Outcomes | None = None
    whole: Outcomes | None = None
    """By the stricter rule."""
    recall: dict[int, float] = Field(default_factory=dict)
    controls: dict[str, Outcomes] = Field(default_factory=dict)
    edit_layer: int | None = None
    rank: int | None = None
    damped: bool = False
    """Whether the inverse faded out around the rank; else it was cut there, as published."""
    succeeded: Outcomes | None = None
    edit_controls: dict[str, Outcomes] = Field(default_factory=dict)
    by_rank: dict[int, float] = Field(default_factory=dict)


def record(trial: Trial) -> TrialRecord:
    """What was counted in a trial."""
    facts = trial.facts
    everyone = [*facts.estimation, *facts.samples]
    texts = [*facts.estimation_said, *facts.said.texts]
    known = [*facts.estimation_known, *facts.known]
    first = {
        sample.object.casefold(): int(token)
        for sample, token in zip(facts.samples, facts.first, strict=True)
    }
    bare = TrialRecord(
        seed=trial.seed,
        known=_outcomes(known, texts, everyone),
        lacking=facts.lacking,
        tested=tuple(each.subject for each in facts.of(facts.test)),
        n_objects=len(first),
        n_sharing=sum(count for count in Counter(first.values()).values() if count > 1),
    )
    tested = facts.of(facts.known_among(facts.test))
    found = bare.model_dump()
    if trial.reading is not None:
        found |= _read(trial.reading, tested)
    if trial.editing is not None:
        found |= _edited(trial.editing, facts.samples)
    return TrialRecord.model_validate(found)


def _read(reading: Faithfulness, tested: Sequence[Sample]) -> dict[str, object]:
    texts = reading.answers.texts
    return {
        "layer": reading.chosen.layer,
        "beta": reading.chosen.value,
        "named": _outcomes(reading.hits, texts, tested),
        "whole": _outcomes(reading.whole_hits, texts, tested),
        "recall": {k: sum(each) / len(each) for k, each in reading.recalled.items()},
        "controls": {each.name: _controlled(each, tested) for each in reading.controls},
    }


def _edited(editing: Causality, samples: Sequence[Sample]) -> dict[str, object]:
    sources = [samples[place] for place in editing.pairs.sources]
    objects = [samples[place].object for place in editing.pairs.targets]
    texts = editing.edited.decoded.texts
    shuffled = expected_hits(texts, objects)

    def outcomes(edited: Edited) -> Outcomes:
        chance = expected_hits(edited.decoded.texts, objects)
        return _by_fact(edited.succeeded, sources, sum(chance) / len(chance))

    controls = {name: outcomes(each) for name, each in editing.rivals.items()}
    chance = sum(shuffled) / len(shuffled)
    controls[SHUFFLED_TARGETS] = _by_fact(shuffled, sources, chance, expected=True)
    return {
        "edit_layer": editing.chosen.layer,
        "rank": int(editing.chosen.value),
        "damped": editing.chosen.damped,
        "succeeded": outcomes(editing.edited),
        "edit_controls": controls,
        "by_rank": editing.by_rank,
    }


def _controlled(control: Control, tested: Sequence[Sample]) -> Outcomes:
    if not control.texts:
        chance = control.successes / len(tested)
        return _by_fact(control.named, tested, chance, expected=True)
    return _outcomes(control.named, control.texts, tested)


def _outcomes(values: Sequence[float], texts: Sequence[str], samples: Sequence[Sample]) -> Outcomes:
    chance = expected_hits(texts, [sample.object for sample in samples])
    return _by_fact(values, samples, sum(chance) / max(1, len(chance)))


def _by_fact(
    values: Sequence[float], samples: Sequence[Sample], chance: float, *, expected: bool = False
) -> Outcomes:
    by_fact = {sample.subject: float(value) for sample, value in zip(samples, values, strict=True)}
    return Outcomes(by_fact=by_fact, chance=chance, expected=expected)
