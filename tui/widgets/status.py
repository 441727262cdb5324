"""How states look: a sign, a word and a colour, so that none of them speaks by colour alone."""

from typing import Final, NamedTuple

from textual.content import Content

from dragoman.agent.rendering.numbers import STATUS_WORDS
from dragoman.core.claims import ClaimStatus
from dragoman.core.records import Bearing
from dragoman.core.report import Outcome

BREAKPOINTS: Final = [(0, "-narrow"), (110, "-wide")]
"""From which width on (cells) two columns stand side by side."""
QUESTION_SIGN: Final = "\N{SINGLE RIGHT-POINTING ANGLE QUOTATION MARK}"


class Look(NamedTuple):
    """A sign of one cell, and the theme's colour for it."""

    sign: str
    style: str


CLAIM_LOOKS: Final[dict[ClaimStatus, Look]] = {
    "observed": Look("○", "$text-muted"),
    "correlated": Look("◔", "$text-primary"),
    "intervention-supported": Look("◑", "$text-success"),
    "replicated": Look("●", "$text-success"),
    "refuted": Look("✕", "$text-error"),
    "inconclusive": Look("?", "$text-warning"),
}
OUTCOME_LOOKS: Final[dict[Outcome, Look]] = {
    "done": Look("●", "$text-success"),
    "gate failed": Look("✕", "$text-error"),
    "limit reached": Look("◔", "$text-warning"),
    "interrupted": Look("◔", "$text-warning"),
}
BEARING_LOOKS: Final[dict[Bearing, Look]] = {
    "supports": Look("+", "$text-success"),
    "refutes": Look("-", "$text-error"),
    "neutral": Look("=", "$text-muted"),
}


def claim_label(status: ClaimStatus) -> Content:
    """'● replicated', coloured."""
    return _label(CLAIM_LOOKS[status], STATUS_WORDS[status])


def outcome_label(outcome: Outcome) -> Content:
    """'● done', coloured."""
    return _label(OUTCOME_LOOKS[outcome], outcome)


def bearing_label(bearing: Bearing) -> Content:
    """'+ supports', coloured."""
    return _label(BEARING_LOOKS[bearing], bearing)


def _label(look: Look, word: str) -> Content:
    return Content.styled(f"{look.sign} {word}", f"bold {look.style}")


def counted(n: int, one: str) -> str:
    """'1 claim', '3 claims', 'no claims'."""
    return f"{n or 'no'} {one}{'' if n == 1 else 's'}"
