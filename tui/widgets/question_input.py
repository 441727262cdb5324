"""The line in which questions are typed; Up and Down bring back earlier ones."""

from typing import ClassVar

from textual import events
from textual.binding import Binding, BindingType
from textual.widgets import Input

from dragoman.core.escaping import visible


class QuestionInput(Input):
    """An input with a memory. What is pasted is made visible, and becomes one line."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up", "recall(-1)", "Earlier question", show=False),
        Binding("down", "recall(1)", "Later question", show=False),
    ]

    def __init__(self, placeholder: str) -> None:
        super().__init__(placeholder=placeholder, id="question", compact=True)
        self.cursor_blink = False
        self._asked: list[str] = []
        self._place = 0
        self._draft = ""

    def remember(self, question: str) -> None:
        """Keep a question that was asked, and empty the line."""
        if not self._asked or self._asked[-1] != question:
            self._asked.append(question)
        self._place = len(self._asked)
        self._draft = ""
        self.value = ""

    def action_recall(self, step: int) -> None:
        """Go back or forth; past the latest stands what was being typed."""
        place = min(max(self._place + step, 0), len(self._asked))
        if place == self._place:
            return
        if self._place == len(self._asked):
            self._draft = self.value
        self._place = place
        self.value = self._draft if place == len(self._asked) else self._asked[place]
        self.cursor_position = len(self.value)

    def on_paste(self, event: events.Paste) -> None:
        """All lines of what was pasted as one, instead of the first line alone."""
        event.prevent_default()
        event.stop()
        self.replace(" ".join(event.text.split("\n")).strip(), *self.selection)

    def replace(self, text: str, start: int, end: int) -> None:
        """Typed or pasted text, with nothing hidden in it."""
        super().replace(visible(text, one_line=True), start, end)
