"""The scrolling conversation: questions, what happens on the way, answers."""

import traceback

from textual.containers import VerticalScroll
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Static

from dragoman.agent.rendering.view import view as report_view
from dragoman.core.errors import DragomanError, Interrupted
from dragoman.core.events import (
    AuditFinished,
    AuditStarted,
    ChatFinished,
    ChatText,
    ClaimMade,
    Notice,
    PhaseStarted,
    RunEvent,
    ToolFinished,
    ToolProgress,
    ToolStarted,
)
from dragoman.core.report import Report
from dragoman.tui.widgets.answer import Answer
from dragoman.tui.widgets.chat_stream import ChatStream
from dragoman.tui.widgets.fold import Fold
from dragoman.tui.widgets.safe_text import shown
from dragoman.tui.widgets.status import QUESTION_SIGN, claim_label, counted
from dragoman.tui.widgets.tool_card import ToolCard


class Conversation(VerticalScroll):
    """Renders events in the order in which they arrive, and decides nothing."""

    def __init__(self) -> None:
        super().__init__(id="conversation")
        self._cards: dict[str, ToolCard] = {}
        self._stream: ChatStream | None = None
        self._audit_id = ""
        self._n_experiments = 0
        self._n_claims = 0
        self.doing = ""
        """What the run is at, in two or three words; foreign text."""

    async def ask(self, question: str) -> None:
        """A new question; what follows belongs to it."""
        self._cards = {}
        self._stream = None
        self._audit_id = ""
        self._n_experiments = self._n_claims = 0
        self.doing = "getting ready"
        self.anchor()
        await self._line(
            (f"{QUESTION_SIGN} ", "bold $text-primary"), shown(question, "bold"), classes="asked"
        )

    async def show(self, event: RunEvent) -> None:
        """Render one event."""
        match event:
            case AuditStarted():
                self._audit_id = event.audit_id
                word = "resumed audit" if event.resumed else "audit"
                about = f"{word} {event.audit_id} of {event.subject}, chat model {event.chat}"
                await self._line(shown(about, "$text-muted", one_line=True), classes="slim")
            case PhaseStarted():
                self.doing = event.phase
                await self._phase(event)
            case ChatText():
                (await self._current_stream()).add(event.text)
            case ChatFinished():
                (await self._current_stream()).finish(event)
                self._stream = None
            case ToolStarted():
                self.doing = event.tool
                await self._card(event)
            case ToolProgress():
                if card := self._cards.get(event.experiment_id):
                    card.progress(event)
            case ToolFinished():
                await self._finish_card(event)
            case ClaimMade():
                self._n_claims += 1
                await self._line(
                    claim_label(event.claim.status), "  ", shown(event.rendered), classes="verdict"
                )
            case Notice():
                await self._line(("note  ", "bold $text-warning"), shown(event.text))
            case AuditFinished():
                path = shown(f"report saved in {event.report_path}", "$text-muted", one_line=True)
                await self._line(path, classes="slim")

    async def end(self, outcome: Report | BaseException) -> None:
        """The run is over: its answer, or in one line why there is none."""
        if self._stream is not None:
            self._stream.stop()
            self._stream = None
        for card in self._cards.values():
            await card.abandon()
            card.opened = False
        match outcome:
            case Report():
                await self._answer(outcome)
            case Interrupted():
                await self._last("◔ Stopped", "$text-warning", str(outcome))
                await self._line(self._kept(), classes="slim")
            case DragomanError():
                await self._last("✕ No answer", "$text-error", str(outcome))
            case BaseException():
                await self._bug(outcome)

    async def _answer(self, report: Report) -> None:
        """The answer takes the place of the verdicts that came in one by one."""
        try:
            view = report_view(report)
        except DragomanError as error:
            await self._last("✕ No answer", "$text-error", str(error))
            return
        await self.query(".verdict").remove()
        answer = Answer(view)
        reading = self.scroll_y < self.max_scroll_y  # further up, which is to stay in view
        await self.mount(answer)
        if not reading:
            self.call_after_refresh(self._show_top, answer)

    def _show_top(self, answer: Answer) -> None:
        """A long answer is read from its beginning; a short one stays at the bottom."""
        if answer.outer_size.height > self.scrollable_content_region.height:
            self.scroll_to_widget(answer, top=True, animate=False)

    def _kept(self) -> Content:
        experiments = counted(self._n_experiments, "experiment")
        kept = f"kept: {experiments}, {counted(self._n_claims, 'claim')}"
        if self._audit_id:
            kept += f"; go on with: dragoman audit --resume {self._audit_id}"
        return shown(kept, "$text-muted", one_line=True)

    async def _phase(self, event: PhaseStarted) -> None:
        await self._line(
            shown(event.phase, "$text-secondary", one_line=True, limit=40),
            "  ",
            shown(event.text, "$text-muted", one_line=True, limit=400),
            classes="phase",
        )

    async def _current_stream(self) -> ChatStream:
        if self._stream is None:
            self._stream = ChatStream()
            await self.mount(self._stream)
        return self._stream

    async def _card(self, event: ToolStarted) -> ToolCard:
        card = ToolCard(event)
        self._cards[event.experiment_id] = card
        await self.mount(card)
        return card

    async def _finish_card(self, event: ToolFinished) -> None:
        self._n_experiments += 1
        result = event.result
        card = self._cards.get(result.experiment_id)
        if card is None:  # replayed from the ledger without having been started again
            card = await self._card(
                ToolStarted(
                    experiment_id=result.experiment_id,
                    tool=result.experiment.tool,
                    arguments=result.experiment.arguments,
                )
            )
        await card.finish(event)

    async def _bug(self, error: BaseException) -> None:
        """A bug keeps its traceback (without the values of variables, which may be secret)."""
        text = "".join(traceback.format_exception(error))
        fold = Fold(Static(shown(text, "$text-muted"), markup=False), opened=True, classes="bug")
        fold.title = Content.assemble(
            ("✕ This is a bug in Dragoman", "bold $text-error"),
            shown(f"  {type(error).__name__}: {error}", one_line=True, limit=200),
        )
        await self.mount(fold)

    async def _last(self, word: str, style: str, text: str) -> None:
        await self._line((f"{word}  ", f"bold {style}"), shown(text), classes="ended")

    async def _line(self, *parts: Content | str | tuple[str, str], classes: str = "") -> None:
        line: Widget = Static(Content.assemble(*parts), markup=False, classes=f"line {classes}")
        await self.mount(line)
