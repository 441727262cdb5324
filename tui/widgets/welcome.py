"""What one sees before the first question: what can be asked, and three ways to begin."""

from typing import Final

from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.message import Message
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from dragoman.tui.widgets.safe_text import shown

EXAMPLES: Final = (
    "Does it know the capitals of countries, and are they decoded linearly?",
    "Can a country's currency be edited without harming other facts?",
    "What do neurons 5, 77 and 301 of layer 4 respond to?",
)


class Welcome(Vertical):
    """The empty conversation."""

    class Chosen(Message):
        """An example was picked."""

        def __init__(self, question: str) -> None:
            self.question = question
            super().__init__()

    def __init__(self, subject_label: str) -> None:
        super().__init__(id="welcome")
        self._subject_label = subject_label

    def compose(self) -> ComposeResult:
        """A greeting, what is possible, and the examples."""
        yield Static(
            Content.assemble(
                ("Ask how ", "bold"),
                shown(self._subject_label, "bold $text-primary", one_line=True, limit=40),
                (" works.", "bold"),
            ),
            markup=False,
        )
        yield Static(
            "Dragoman turns a question into hypotheses, tests them on the network itself, and"
            " answers only with what the experiments carry: which facts it knows and how it"
            " decodes them, whether an edit holds and spares the rest, what single neurons"
            " respond to.",
            markup=False,
            classes="what",
        )
        yield Static("Try one of these: Tab, then Enter", markup=False, classes="section")
        yield OptionList(
            *(Option(Content.assemble(("→ ", "$text-primary"), example)) for example in EXAMPLES),
            id="examples",
            markup=False,
        )

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        """Hand the question on."""
        event.stop()
        self.post_message(self.Chosen(EXAMPLES[event.option_index]))
