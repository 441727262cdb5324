"""What the numbers of a relation say, in words, by fixed rules.

*Linear* needs a faithfulness of at least `ENOUGH`, which is the line that Hernandez et al. 2024
draw, above every control by an interval. *Causal* needs the same of the edits, above every control
in which no map takes part but the swap of the whole h, which is what an edit can do at all.
"""

from collections.abc import Sequence
from typing import Literal, TypeAlias

from dragoman.core.records import Record
from dragoman.tools.circuits.controls import EMBEDDED
from dragoman.tools.circuits.measuring import control_outcomes
from dragoman.tools.circuits.pooling import beats, by_chance, pool
from dragoman.tools.circuits.trial import BESIDE
from dragoman.tools.circuits.trial_record import Outcomes, TrialRecord

Label: TypeAlias = Literal[
    "linear here and causal",
    "decodable but not causal",
    "known but not linear",
    "not known",
    "cannot be judged",
]

ENOUGH = 0.6
BARELY = 0.25
"""A subject that surely knows less than this of a relation does not know the relation."""


class Verdict(Record):
    """A label and the reason for it, with the numbers."""

    label: Label
    reason: str

    def __str__(self) -> str:
        """One clause: label and reason."""
        return f"{self.label}: {self.reason}"


def judge(trials: Sequence[TrialRecord]) -> Verdict:
    """The verdict on one relation from all its splits."""
    judged = [trial for trial in trials if trial.named is not None]
    if 2 * len(judged) < len(trials) or not judged:
        return _unjudged(trials)
    named = [trial.named for trial in judged if trial.named is not None]
    faithfulness = pool(named)
    controls = control_outcomes([trial.controls for trial in judged])
    told = f"faithfulness {faithfulness.value:.2f} (n={faithfulness.n})"
    short = _shortcoming(named, controls)
    if short:
        return Verdict(label="known but not linear", reason=f"{told}, {short}")
    edited = [trial for trial in judged if trial.succeeded is not None]
    succeeded = [trial.succeeded for trial in edited if trial.succeeded is not None]
    if not succeeded:
        return Verdict(
            label="decodable but not causal",
            reason=f"{told}; too few known facts have another to be turned to, "
            "so no edit could be judged",
        )
    rivals = control_outcomes([trial.edit_controls for trial in edited])
    for name in BESIDE:
        rivals.pop(name, None)
    causality = pool(succeeded)
    told += f", causality {causality.value:.2f} (n={causality.n})"
    short = _shortcoming(succeeded, rivals)
    if short:
        return Verdict(label="decodable but not causal", reason=f"{told}; edits {short}")
    return Verdict(label="linear here and causal", reason=told)


def _shortcoming(ours: Sequence[Outcomes], controls: dict[str, list[Outcomes]]) -> str:
    """What keeps a number from counting; empty where nothing does."""
    if pool(ours).value < ENOUGH:
        return f"below {ENOUGH}"
    missed = [
        f"{name} ({pool(splits).value:.2f})"
        for name, splits in controls.items()
        if not beats(ours, splits)
    ]
    if not missed:
        return ""
    short = f"not above {', '.join(missed)} by an interval"
    # The one rival that is a map of the same kind: a relation of words needs no layer at all.
    if len(missed) == 1 and missed[0].startswith(EMBEDDED):
        short += ": linear, if anywhere, in the word itself"
    return short


def _unjudged(trials: Sequence[TrialRecord]) -> Verdict:
    known_splits = [trial.known for trial in trials]
    known, chance = pool(known_splits), pool(by_chance(known_splits))
    told = f"{known.value:.2f} of {known.n} facts known, {chance.value:.2f} by chance"
    if known.interval.high < BARELY or known.interval.low <= chance.value:
        return Verdict(label="not known", reason=told)
    lacking = next(trial.lacking for trial in trials if trial.lacking)
    return Verdict(label="cannot be judged", reason=f"{lacking} ({told})")
