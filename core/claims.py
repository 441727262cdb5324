"""Hypotheses, predictions and claims: what is asserted, and how far it got."""

from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from dragoman.core.records import JsonObject, Measurement, Record

ClaimStatus: TypeAlias = Literal[
    "observed",
    "correlated",
    "intervention-supported",
    "replicated",
    "refuted",
    "inconclusive",
]
"""The ladder: observed → correlated → intervention-supported → replicated; or it fell off."""

Rung: TypeAlias = Literal["observed", "correlated", "intervention-supported"]


class Prediction(Record):
    """What a hypothesis says a metric will be, written down before the experiment runs.

    Supported when the interval lies wholly above `threshold` *and* above the control; refuted
    when it lies wholly below the threshold or its value is not above the control.
    """

    metric: str
    threshold: float
    """In the metric's own unit."""
    rung: Rung
    """How high on the ladder a claim climbs when this prediction holds."""
    scope: str | None = None


class Hypothesis(Record):
    """A typed, testable statement with its rivals, one of which is 'nothing here'."""

    id: str
    template: str
    """Name in the catalogue of hypothesis templates."""
    slots: JsonObject
    statement: str
    predictions: tuple[Prediction, ...]
    refuted_by: str
    rivals: Annotated[tuple[str, ...], Field(min_length=1)]
    tool: str
    arguments: JsonObject
    controls: tuple[str, ...]
    """The controls that the test brings with it, by name."""
    proposed_by: str
    """The chat model's name, or 'protocol' when no chat model took part."""


class Claim(Record):
    """A sentence that the evidence carries, and how far."""

    id: str
    text: str
    """Prose without digits of its own: numbers are holes such as `{faithfulness}`."""
    status: ClaimStatus
    effects: tuple[Measurement, ...]
    evidence_ids: tuple[str, ...]
    control_ids: tuple[str, ...]
    scope: str
    hypothesis_id: str
    confounds: tuple[str, ...] = ()


class Concern(Record):
    """What a critic holds against a result."""

    claim_id: str
    text: str
    raised_by: str
    severity: Literal["note", "weakens", "voids"]


class Finding(Record):
    """A claim as memory keeps it: with where, when and about which network."""

    id: str
    text: str
    status: ClaimStatus
    subject_name: str
    subject_digest: str
    audit_id: str
    created: str
    """ISO 8601, UTC."""
    source: str
    """'claim' for verdicts of an audit; subject text is never stored as a finding."""


class RecalledFinding(Record):
    """A finding that memory brought back, and how it may be used."""

    finding: Finding
    similarity: float
    standing: Literal["prior, unverified", "of another model"]
