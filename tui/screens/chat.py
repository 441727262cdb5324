"""The chat: ask at the bottom, watch the experiments, open the evidence behind the answer."""

from collections.abc import Callable
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.message import Message
from textual.screen import Screen
from textual.widget import MountError
from textual.widgets import Footer, Input, Static

from dragoman.core.report import Report
from dragoman.tui.running import Ended, Runner, Running
from dragoman.tui.widgets.answer import OpenClaim
from dragoman.tui.widgets.conversation import Conversation
from dragoman.tui.widgets.evidence import EvidencePane
from dragoman.tui.widgets.question_input import QuestionInput
from dragoman.tui.widgets.safe_text import shown
from dragoman.tui.widgets.status import BREAKPOINTS, QUESTION_SIGN
from dragoman.tui.widgets.title_bar import TitleBar
from dragoman.tui.widgets.welcome import Welcome


class ChatScreen(Screen[None]):
    """One question at a time; its events are drained here and rendered in order."""

    AUTO_FOCUS = "#question"
    HORIZONTAL_BREAKPOINTS = BREAKPOINTS
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "stop", "Stop"),
        Binding("escape", "close_evidence", "Close evidence"),
        Binding("pageup", "scroll(-1)", "Scroll up", show=False),
        Binding("pagedown", "scroll(1)", "Scroll down", show=False),
    ]

    class Arrived(Message):
        """The running question has something to drain."""

    def __init__(
        self,
        runner: Runner,
        subject_label: str,
        chat_label: str,
        clock: Callable[[], float],
    ) -> None:
        super().__init__()
        self.running: Running | None = None
        self._runner = runner
        self._subject_label = subject_label
        self._chat_label = chat_label
        self._clock = clock
        self._leaving = False
        self._began = 0.0

    def compose(self) -> ComposeResult:
        """Title, conversation beside evidence, the state of the run, the input, the keys."""
        yield TitleBar(self._subject_label, self._chat_label)
        with Horizontal(id="middle"):
            with Vertical(id="left"):
                yield Welcome(self._subject_label)
                yield Conversation()
            yield EvidencePane(id="evidence")
        yield Static(id="state", markup=False)
        with Horizontal(id="ask"):
            yield Static(QUESTION_SIGN, id="prompt", markup=False)
            yield QuestionInput("Ask about the subject, Enter sends")
        yield Footer(show_command_palette=False)

    def on_mount(self) -> None:
        """Begin empty."""
        self.query_one(EvidencePane).display = False
        self.query_one(Conversation).display = False
        self.set_interval(1.0, self._show_state)

    def leave(self) -> None:
        """The person quits: ask the run to stop, and show nothing more of it."""
        self._leaving = True
        if self.running is not None:
            self.running.cancel()

    @property
    def busy(self) -> bool:
        """Whether a question is running."""
        return self.running is not None

    @on(Input.Submitted, "#question")
    async def _submitted(self, event: Input.Submitted) -> None:
        question = event.value.strip()
        if not question:
            return
        if self.busy:
            self.notify(
                "One question at a time: Esc stops this one.", severity="warning", markup=False
            )
            return
        self.query_one(QuestionInput).remember(question)
        self.query_one(Welcome).display = False
        conversation = self.query_one(Conversation)
        conversation.display = True
        await conversation.ask(question)
        self.running = Running(self._runner, question, lambda: self.post_message(self.Arrived()))
        self._began = self._clock()
        self.running.start()
        self._show_state()
        self.refresh_bindings()

    @on(Welcome.Chosen)
    def _chosen(self, event: Welcome.Chosen) -> None:
        """Put an example into the input, where it can still be changed."""
        question = self.query_one(QuestionInput)
        question.value = event.question
        question.cursor_position = len(event.question)
        question.focus()

    async def on_chat_screen_arrived(self, message: Arrived) -> None:
        """Render what the thread has produced since the last time."""
        if self.running is None or self._leaving:
            return
        try:
            await self._show_arrivals(self.running)
        except MountError:  # the person quit in the middle: there is nothing to mount into
            if not self._leaving:
                raise

    async def _show_arrivals(self, running: Running) -> None:
        conversation = self.query_one(Conversation)
        for arrival in running.drain():
            if isinstance(arrival, Ended):
                self.running = None
                await conversation.end(arrival.outcome)
                self._announce(arrival.outcome)
                break
            await conversation.show(arrival)
        self._show_state()
        self.refresh_bindings()

    @on(OpenClaim)
    async def _open_claim(self, message: OpenClaim) -> None:
        pane = self.query_one(EvidencePane)
        await pane.show(message.view, message.place)
        pane.display = True
        self.set_class(True, "-evidence")
        pane.focus()
        self.refresh_bindings()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Offer only what can be done now. Esc leaves the evidence before it stops a run."""
        in_evidence = self.has_class("-evidence") and self.query_one(EvidencePane).has_focus_within
        if action == "stop":
            return self.busy and not in_evidence
        if action == "close_evidence":
            return self.has_class("-evidence") and (in_evidence or not self.busy)
        return True

    def action_stop(self) -> None:
        """Ask the running question to stop."""
        if self.running is not None:
            self.running.cancel()
            self._show_state()

    def action_close_evidence(self) -> None:
        """Back to the conversation."""
        self.query_one(EvidencePane).display = False
        self.set_class(False, "-evidence")
        self.query_one(QuestionInput).focus()
        self.refresh_bindings()

    def action_scroll(self, pages: int) -> None:
        """Scroll the conversation while the input keeps the focus."""
        conversation = self.query_one(Conversation)
        if pages < 0:
            conversation.scroll_page_up()
        else:
            conversation.scroll_page_down()

    def _announce(self, outcome: Report | BaseException) -> None:
        """Say it on the other screens too."""
        if self.app.screen is not self:
            done = "The answer is ready." if isinstance(outcome, Report) else "The run has ended."
            self.app.notify(f"{done} Esc leads back to the chat.", markup=False)

    def _show_state(self) -> None:
        if self._leaving:
            return
        state = self.query_one("#state", Static)
        state.display = self.busy
        if self.running is None:
            return
        minutes, seconds = divmod(int(self._clock() - self._began), 60)
        if self.running.cancelled:
            what = Content.styled("◔ stopping… the step under way is ended first", "$text-warning")
        else:
            what = Content.assemble(
                ("● running  ", "$text-primary"),
                shown(self.query_one(Conversation).doing, "$text-muted", one_line=True, limit=80),
            )
        state.update(Content.assemble((f"{minutes}:{seconds:02d}  ", "$text-muted"), what))
