"""One report: verdict and narrative above, claims at the left, their evidence at the right."""

from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.content import Content
from textual.screen import Screen
from textual.widgets import Footer, OptionList, Static
from textual.widgets.option_list import Option

from dragoman.agent.rendering.view import ReportView
from dragoman.tui.widgets.answer import OpenClaim, SentenceText
from dragoman.tui.widgets.evidence import EvidencePane
from dragoman.tui.widgets.prose import claim_content
from dragoman.tui.widgets.safe_text import shown
from dragoman.tui.widgets.status import BREAKPOINTS, claim_label, outcome_label
from dragoman.tui.widgets.title_bar import TitleBar


class ReportScreen(Screen[None]):
    """A report to read; the highlighted claim's evidence follows the cursor."""

    AUTO_FOCUS = "#claims"
    HORIZONTAL_BREAKPOINTS = BREAKPOINTS
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "app.pop_screen", "Back to the reports"),
    ]

    def __init__(self, view: ReportView) -> None:
        super().__init__()
        self._view = view

    def compose(self) -> ComposeResult:
        """Title; verdict; claims beside evidence."""
        report = self._view.report
        yield TitleBar(report.subject.name, report.chat.model)
        with VerticalScroll(id="top"):
            yield Static(
                Content.assemble(
                    shown(report.title, "bold", one_line=True),
                    "  ",
                    outcome_label(report.outcome),
                    shown(f"  {report.finished.replace('T', ' ')[:16]}", "$text-muted"),
                ),
                markup=False,
                classes="answer-title",
            )
            for sentence in (*self._view.verdict, *self._view.narrative):
                yield SentenceText(sentence, self._view)
            for negative in report.negative_results:
                yield Static(
                    Content.assemble(
                        shown(f"{negative.kind}  ", "$text-warning"), shown(negative.text)
                    ),
                    markup=False,
                    classes="sentence",
                )
        with Horizontal(id="bottom"):
            yield OptionList(
                *(
                    Option(
                        Content.assemble(
                            (f"{claim.label}  ", "$text-primary"),
                            claim_label(claim.claim.status),
                            "\n",
                            claim_content(claim.text, brief=True),
                            "\n",
                        )
                    )
                    for claim in self._view.claims
                ),
                id="claims",
                markup=False,
            )
            yield EvidencePane(id="behind")
        yield Footer(show_command_palette=False)

    async def on_mount(self) -> None:
        """Show the first claim's evidence."""
        if not self._view.claims:
            await self.query_one(EvidencePane).say("This report makes no claims.")

    @on(OptionList.OptionHighlighted, "#claims")
    async def _highlighted(self, event: OptionList.OptionHighlighted) -> None:
        await self.query_one(EvidencePane).show(self._view, event.option_index)

    @on(OptionList.OptionSelected, "#claims")
    def _selected(self, event: OptionList.OptionSelected) -> None:
        self.query_one(EvidencePane).focus()

    @on(OpenClaim)
    def _open_claim(self, message: OpenClaim) -> None:
        """A number or mark in the verdict was clicked."""
        self.query_one("#claims", OptionList).highlighted = message.place
