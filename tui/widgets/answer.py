"""The answer to a question: verdict sentences, then the claims that carry them as links."""

from typing import ClassVar

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.message import Message
from textual.widgets import Static

from dragoman.agent.rendering.numbers import count, duration
from dragoman.agent.rendering.view import ReportView, SentenceView
from dragoman.core.report import Report
from dragoman.tui.widgets.prose import claim_content, sentence_content
from dragoman.tui.widgets.safe_text import shown
from dragoman.tui.widgets.status import claim_label, counted, outcome_label


class OpenClaim(Message):
    """The person wants to see what carries a claim; `place` counts the report's claims from 0."""

    def __init__(self, view: ReportView, place: int) -> None:
        self.view = view
        self.place = place
        super().__init__()


class SentenceText(Static):
    """A sentence of a report; its numbers and marks open the claim behind them."""

    def __init__(self, sentence: SentenceView, view: ReportView) -> None:
        super().__init__(sentence_content(sentence, view), markup=False, classes="sentence")
        self._view = view

    def action_open_claim(self, place: int) -> None:
        """Open the claim with that place in the report."""
        self.post_message(OpenClaim(self._view, place))


class ClaimLink(Horizontal, can_focus=True):
    """One claim in a list: Enter, or a click, opens its evidence."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("enter,space", "open", "Show evidence")]

    def __init__(self, view: ReportView, place: int) -> None:
        super().__init__(classes="claim-link")
        self._view = view
        self._place = place

    def compose(self) -> ComposeResult:
        """Label, then status over text."""
        claim = self._view.claims[self._place]
        yield Static(Content.styled(claim.label, "$text-primary"), classes="label", markup=False)
        yield Static(
            Content.assemble(
                claim_label(claim.claim.status), "\n", claim_content(claim.text, brief=True)
            ),
            classes="text",
            markup=False,
        )

    def on_click(self, event: events.Click) -> None:
        """Open by mouse."""
        event.stop()
        self.action_open()

    def action_open(self) -> None:
        """Open the evidence."""
        self.post_message(OpenClaim(self._view, self._place))


class Answer(Vertical):
    """What a report says at its top, and the way to all the rest of it."""

    def __init__(self, view: ReportView) -> None:
        super().__init__(classes="answer")
        self._view = view

    def compose(self) -> ComposeResult:
        """Outcome, verdict, claims, and what it took."""
        report = self._view.report
        reason = "" if report.outcome == "done" else report.outcome_reason
        yield Static(
            Content.assemble(
                ("Answer  ", "bold"),
                outcome_label(report.outcome),
                "  " if reason else "",
                shown(reason, "$text-muted", one_line=True),
            ),
            markup=False,
            classes="answer-title",
        )
        for sentence in self._view.verdict:
            yield SentenceText(sentence, self._view)
        if not self._view.verdict:
            yield Static("Nothing can be said yet.", markup=False, classes="sentence")
        for place in range(len(self._view.claims)):
            yield ClaimLink(self._view, place)
        yield Static(_footing(report), markup=False, classes="footing")


def _footing(report: Report) -> Content:
    cost = report.cost
    calls = sum(tool.calls for tool in cost.tools)
    tokens = cost.prompt_tokens + cost.completion_tokens
    parts = [
        counted(len(report.claims), "claim"),
        counted(calls, "experiment"),
        f"{count(tokens)} tokens" if tokens else "no chat tokens",
        duration(cost.seconds),
        f"report {report.id}",
    ]
    return shown(" · ".join(parts), "$text-muted", one_line=True, limit=400)
