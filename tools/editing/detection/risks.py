"""A tested fact's risk, with the reason in words: a row of the table that a person reads."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from dragoman.core.records import JsonObject, Record
from dragoman.tools.editing.detection.probe import Verdicts
from dragoman.tools.statistics import Floats

if TYPE_CHECKING:
    from dragoman.tools.editing.detection.trial import Trial


class Risk(Record):
    """What is foreseen of one prompt, and what then came."""

    entity: str
    object: str
    """What the fact (or the context) states."""
    prompt: str
    context: str
    """Kind of context; empty for the subject's own memory."""
    risk: float
    """Probability of an error, 0..1."""
    error_foreseen: bool
    expected: str
    """The answer that the entity's representation speaks for."""
    rival: str
    """Of the answers that are not stated, the one that it speaks for most."""
    confidence_risk: float
    """Probability of an error by the subject's own confidence."""
    error: bool
    answered: str
    """What the subject then preferred."""
    reason: str

    def row(self) -> JsonObject:
        """As JSON."""
        found: JsonObject = self.model_dump(mode="json")
        return found


def reason(stated: str, expected: str, risk: float, foreseen: bool) -> str:
    """Why a fact is at risk, or is not."""
    if stated == expected:
        held = f"the entity's representation speaks for {stated!r}"
        return f"{held}, but weakly" if foreseen else held
    held = f"the entity's representation speaks for {expected!r} rather than {stated!r}"
    return held if foreseen else f"{held}, but no more than where the subject is right all the same"


def risk_rows(
    trial: "Trial", rows: Sequence[int], verdicts: Verdicts, doubts: Floats
) -> list[Risk]:
    """Of the prompts `rows`, in their order."""
    readings, claims = trial.readings.rows(rows), trial.asked.claims.rows(rows)
    said = np.where(claims.candidates, readings.answers, -np.inf).argmax(1)
    found = []
    for place, at in enumerate(rows):
        stated = trial.among.spoken(int(trial.asked.claims.claimed[at]))
        expected = trial.among.spoken(verdicts.expected[place])
        risk, foreseen = float(verdicts.risk[place]), bool(verdicts.foreseen[place])
        found.append(
            Risk(
                entity=trial.asked.groups[at],
                object=stated,
                prompt=trial.asked.prompts[at].text,
                context=trial.asked.kinds[at],
                risk=risk,
                error_foreseen=foreseen,
                expected=expected,
                rival=trial.among.spoken(verdicts.rivals[place]),
                confidence_risk=float(doubts[place]),
                error=bool(trial.wrong[at]),
                answered=trial.among.spoken(said[place]),
                reason=reason(stated, expected, risk, foreseen),
            )
        )
    return found
