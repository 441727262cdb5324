"""A block with a header that opens and closes it, by key or by mouse."""

from typing import ClassVar

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.message import Message
from textual.widget import Widget
from textual.widgets import Static


class FoldHeader(Static, can_focus=True):
    """The line that opens and closes its block."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter,space", "turn", "Open/close"),
    ]

    class Toggled(Message):
        """The person wants the block the other way."""

    def __init__(self) -> None:
        super().__init__(markup=False)

    def on_click(self, event: events.Click) -> None:
        """A click anywhere on the line."""
        event.stop()
        self.action_turn()

    def action_turn(self) -> None:
        """Tell the block."""
        self.post_message(self.Toggled())


class Fold(Vertical):
    """A header line over a body; closed, only the header is seen."""

    def __init__(self, *body: Widget, opened: bool, classes: str = "") -> None:
        super().__init__(classes=f"fold {classes}")
        self._header = FoldHeader()
        self._title = Content()
        self._body = Vertical(*body, classes="fold-body")
        self._opened = opened

    def compose(self) -> ComposeResult:
        """Header, then body."""
        yield self._header
        yield self._body

    def on_mount(self) -> None:
        """Show the state it was made with."""
        self.opened = self._opened

    @property
    def opened(self) -> bool:
        """Whether the body is seen."""
        return self._opened

    @opened.setter
    def opened(self, opened: bool) -> None:
        self._opened = opened
        self._body.display = opened
        self.title = self._title

    @property
    def title(self) -> Content:
        """What the header says, without its sign."""
        return self._title

    @title.setter
    def title(self, title: Content) -> None:
        self._title = title
        sign = "▾ " if self._opened else "▸ "
        self._header.update(Content.assemble((sign, "$text-muted"), title))

    def on_fold_header_toggled(self, message: FoldHeader.Toggled) -> None:
        """Open or close."""
        message.stop()
        self.opened = not self.opened
