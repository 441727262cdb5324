"""What every step of one audit works with: its specification, ledger, budget, chat and bench."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from pydantic import BaseModel

from dragoman.agent.budget import Budget
from dragoman.agent.ledger import Ledger
from dragoman.agent.slots import Scene
from dragoman.agent.specification import Specification
from dragoman.agent.structured import ask
from dragoman.agent.workbench import Workbench
from dragoman.core.claims import Claim, Concern, Hypothesis
from dragoman.core.events import ChatText, EventSink, Notice, PhaseStarted, ToolFinished
from dragoman.core.protocols import Cancelled, ChatMessage, ChatModel, ChatRequest
from dragoman.core.records import Evidence, Experiment, Record, ToolResult
from dragoman.core.report import Coverage, Deviation, NegativeResult, PhaseNote, Sentence
from dragoman.prompts import render

AnyRecord = TypeVar("AnyRecord", bound=Record)
AnyReply = TypeVar("AnyReply", bound=BaseModel)


class Registration(Record):
    """A hypothesis and the experiment that is to test it, written down before it runs."""

    hypothesis_id: str
    experiment: Experiment


class Tested(NamedTuple):
    """A hypothesis whose experiment has a good result."""

    hypothesis: Hypothesis
    experiment: Experiment
    result: ToolResult


@dataclass(frozen=True)
class Desk:
    """One audit at work. Everything that is kept goes into the ledger, under a kind and a key."""

    audit_id: str
    specification: Specification
    scene: Scene
    bench: Workbench
    reference: Workbench | None
    """A second subject on which every experiment is repeated for comparison."""
    ledger: Ledger
    budget: Budget
    chat: ChatModel | None
    """Every call of it is recorded and paid from the budget."""
    on_event: EventSink
    cancelled: Cancelled

    # telling the person

    def phase(self, phase: str, text: str) -> None:
        """Announce a step, and note it for the report's timeline."""
        self.on_event(PhaseStarted(phase=phase, text=text))
        self.keep("phase", f"{phase}: {text}", PhaseNote(phase=phase, text=text))

    def notice(self, text: str) -> None:
        """Tell the person something that is no result."""
        self.on_event(Notice(text=text))

    def stream(self, text: str) -> None:
        """Pass on the chat model's words as they come."""
        self.on_event(ChatText(text=text))

    def ask(
        self, purpose: str, asked: str, reply_type: type[AnyReply], *, max_tokens: int
    ) -> AnyReply:
        """One validated reply to `asked`, under the system prompt `<purpose>_system`.

        Raises as `structured.ask`; the desk must have a chat model.
        """
        assert self.chat is not None
        request = ChatRequest(
            purpose=purpose,
            messages=(
                ChatMessage(role="system", content=render(f"{purpose}_system")),
                ChatMessage(role="user", content=asked),
            ),
            max_tokens=max_tokens,
            seed=self.specification.seed,
        )
        return ask(self.chat, request, reply_type, on_text=self.stream, cancelled=self.cancelled)

    # keeping and reading

    def keep(self, kind: str, key: str, record: Record) -> None:
        """Write a record; a repeated run writes the same again, which is no change."""
        self.ledger.put(self.audit_id, kind, key, record)

    def kept(self, kind: str, record_type: type[AnyRecord]) -> list[AnyRecord]:
        """All records of a kind, oldest first."""
        return [
            record_type.model_validate(body) for body in self.ledger.entries(self.audit_id, kind)
        ]

    def hypotheses(self, ids: Sequence[str] | None = None) -> list[Hypothesis]:
        """Those of the given ids, or all."""
        every = self.kept("hypothesis", Hypothesis)
        return [each for each in every if ids is None or each.id in ids]

    def registrations(self, hypothesis_ids: Sequence[str]) -> list[Registration]:
        """The experiments that were written down for these hypotheses."""
        every = self.kept("registration", Registration)
        return [each for each in every if each.hypothesis_id in hypothesis_ids]

    def tested(self, hypothesis_ids: Sequence[str]) -> list[Tested]:
        """These hypotheses with their results, as far as their experiments worked."""
        hypotheses = {each.id: each for each in self.hypotheses(hypothesis_ids)}
        found = []
        for registration in self.registrations(hypothesis_ids):
            result = self.result(registration.experiment)
            if result is not None and result.status == "ok":
                hypothesis = hypotheses[registration.hypothesis_id]
                found.append(Tested(hypothesis, registration.experiment, result))
        return found

    def claims(self) -> list[Claim]:
        """Every claim so far."""
        return self.kept("claim", Claim)

    def evidence(self) -> list[Evidence]:
        """Every piece of evidence so far."""
        return self.kept("evidence", Evidence)

    def concerns(self) -> list[Concern]:
        """What was held against the claims so far."""
        return self.kept("concern", Concern)

    def narrative(self) -> list[Sentence]:
        """The sentences that the chat model wrote and the check let pass."""
        return self.kept("sentence", Sentence)

    def deviate(self, planned: str, happened: str, reason: str) -> None:
        """Record where the run left its plan."""
        deviation = Deviation(planned=planned, happened=happened, reason=reason)
        self.keep("deviation", deviation.content_id(), deviation)

    def miss(self, negative: NegativeResult) -> None:
        """Record what was not found, not searched, or failed."""
        self.keep("negative", negative.content_id(), negative)

    def cover(self, hypothesis_id: str, coverage: Coverage) -> None:
        """Record what a hypothesis's experiment searched."""
        self.keep("coverage", hypothesis_id, coverage)

    # experiments

    def result(self, experiment: Experiment) -> ToolResult | None:
        """The result of an experiment, if it has been run."""
        return self.ledger.result(experiment.id, self.audit_id)

    def conduct(self, experiment: Experiment, bench: Workbench | None = None) -> ToolResult:
        """Run an experiment within the budget, or take its result from the ledger.

        Raises:
            LimitReached: the budget does not allow it, or ran out while it was at work.
        """
        known = self.result(experiment)
        if known is not None:
            self.on_event(ToolFinished(result=known, seconds=0.0, replayed=True))
            return known
        self.budget.step(experiment.id)
        return (bench or self.bench).carry_out(
            experiment,
            audit_id=self.audit_id,
            chat=self.chat,
            on_event=self.on_event,
            cancelled=self.cancelled,
            watch=lambda done, total, text: self.budget.check_time(),
        )
