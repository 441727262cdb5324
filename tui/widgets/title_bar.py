"""One line at the top: where one is, and which networks are involved."""

from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.content import Content
from textual.widgets import Static

from dragoman.tui.widgets.safe_text import shown


class TitleBar(Horizontal):
    """'Dragoman', then subject and chat model, or the name of the screen."""

    def __init__(self, subject_label: str, chat_label: str) -> None:
        super().__init__(classes="title-bar")
        self._about = Content.assemble(
            ("subject ", "$text-muted"),
            shown(subject_label, one_line=True, limit=60),
            ("   chat ", "$text-muted"),
            shown(chat_label, one_line=True, limit=60),
        )

    def compose(self) -> ComposeResult:
        """Name at the left, networks at the right."""
        yield Static("Dragoman", classes="name", markup=False)
        yield Static(self._about, classes="about", markup=False)
