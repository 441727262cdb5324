"""What the chat model writes, as it writes it; folded to one line when the call has ended."""

from textual.content import Content
from textual.widgets import Static

from dragoman.core.events import ChatFinished
from dragoman.tui.widgets.fold import Fold
from dragoman.tui.widgets.safe_text import shown

_LIVE_LINES = 6


class ChatStream(Fold):
    """One reply of the chat model. While it grows, only its last lines are shown."""

    def __init__(self) -> None:
        self._text = Static(markup=False)
        self._reply = ""
        super().__init__(self._text, opened=True, classes="stream -live")
        self.title = Content.assemble(("chat model", "$text-secondary"), (" is writing …", ""))

    def add(self, text: str) -> None:
        """A piece more."""
        self._reply += text
        tail = "\n".join(self._reply[-2000:].rstrip().split("\n")[-_LIVE_LINES:])
        self._text.update(shown(tail, "$text-muted"))

    def finish(self, event: ChatFinished) -> None:
        """Fold away: the reply's effect is what follows."""
        took = f"{event.prompt_tokens:,} + {event.completion_tokens:,} tokens"
        if event.replayed:
            took += ", replayed from the ledger"
        self._fold(Content.assemble(shown(event.purpose, one_line=True, limit=80), f" · {took}"))

    def stop(self) -> None:
        """The run ended in the middle of the reply."""
        self._fold(Content("stopped in the middle"))

    def _fold(self, what: Content) -> None:
        self._text.update(shown(self._reply, "$text-muted"))
        self.remove_class("-live")
        self.opened = False
        self.title = Content.assemble(
            ("chat model", "$text-secondary"), "  ", what.stylize_before("$text-muted")
        )
