"""The report: one JSON source from which Markdown, HTML and the TUI are rendered."""

from typing import Literal, TypeAlias

from dragoman.core.claims import Claim, Concern, Hypothesis
from dragoman.core.records import (
    ChatIdentity,
    Evidence,
    JsonObject,
    Measurement,
    Record,
    SubjectIdentity,
)

SCHEMA_VERSION = "1.0"

Outcome: TypeAlias = Literal["done", "gate failed", "limit reached", "interrupted"]


class Sentence(Record):
    """A sentence of the narrative: prose with holes, and the claims that carry it.

    A hole is `{claim_id.metric}`, or `{claim_id.metric#scope}` where the claim has several effects
    of one metric (in `Claim.text`: `{metric}`, `{metric#scope}`); it is filled with the wording of
    that claim's measurement. `{{` and `}}` are literal braces. Prose outside holes holds no digits
    except inside a name that the report itself carries (`agent/report_names.py`): the subject's,
    the chat model's, or of the cited claims a scope, a metric, or a slot of their hypotheses.
    """

    text: str
    claim_ids: tuple[str, ...]


class NegativeResult(Record):
    """A test that was run and found nothing, or was asked for and not run."""

    kind: Literal["nothing found", "not searched", "failed"]
    text: str
    claim_ids: tuple[str, ...] = ()


class Coverage(Record):
    """One thing that was searched, or was not, and how far."""

    subject_part: str
    """'relation country_capital', 'layer 12, units 3 5 77'."""
    searched: bool
    detail: str


class Deviation(Record):
    """Where the run left its preregistered plan, and why."""

    planned: str
    happened: str
    reason: str


class ToolCost(Record):
    """Time that one tool took."""

    tool: str
    calls: int
    seconds: float


class Cost(Record):
    """What the audit spent; `usd` is None where the endpoint's price is not known."""

    chat_calls: int
    prompt_tokens: int
    completion_tokens: int
    usd: float | None
    seconds: float
    tools: tuple[ToolCost, ...]


class Gate(Record):
    """A condition of the specification that decides the exit code."""

    description: str
    passed: bool
    observed: str


class PhaseNote(Record):
    """One step of the run, for the reader who wants to follow it."""

    phase: str
    text: str


class Report(Record):
    """All that an audit asserts, with what carries it."""

    schema_version: str = SCHEMA_VERSION
    id: str
    title: str
    questions: tuple[str, ...]
    verdict: tuple[Sentence, ...]
    narrative: tuple[Sentence, ...]
    claims: tuple[Claim, ...]
    evidence: tuple[Evidence, ...]
    hypotheses: tuple[Hypothesis, ...]
    concerns: tuple[Concern, ...]
    negative_results: tuple[NegativeResult, ...]
    coverage: tuple[Coverage, ...]
    controls: tuple[Measurement, ...]
    """Further baselines. A control id names one of these by its content id, or an evidence."""
    deviations: tuple[Deviation, ...]
    gates: tuple[Gate, ...]
    cost: Cost
    replay: tuple[str, ...]
    """Commands that repeat each experiment without any chat model, one for each experiment.

    `dragoman tool run NAME --subject S --seed N --args JSON  # experiment ID`, as
    `agent/rendering/replay.py` writes it: quoted for a POSIX shell, on one line.
    """
    timeline: tuple[PhaseNote, ...]
    subject: SubjectIdentity
    reference: SubjectIdentity | None
    chat: ChatIdentity
    outcome: Outcome
    outcome_reason: str
    started: str
    finished: str
    seed: int
    specification: JsonObject


class ReportRow(Record):
    """A report as `report list` shows it."""

    id: str
    question: str
    subject: str
    finished: str
    outcome: Outcome
    n_claims: int
