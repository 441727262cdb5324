"""Foreign text made visible: nothing hidden is left, nothing shown is lost."""

import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dragoman.core.escaping import visible, well_formed

HIDDEN = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}


@given(st.text(st.characters(codec=None, categories=None)))
@example("\x1b]52;c;aGk=\x07")
@example("\ud800")
@example("\u202e\u2066\u200b\U000e0041")
def test_no_hidden_character_is_left(text: str) -> None:
    left = {c for c in visible(text) if unicodedata.category(c) in HIDDEN}
    assert left <= {"\n", "\t"}
    assert "\n" not in visible(text, one_line=True)


@given(st.text(st.characters(categories=["L", "N", "P", "S", "Zs"])))
def test_plain_text_stays_as_it_is(text: str) -> None:
    assert visible(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2J", r"\x1b[2J"),
        ("a\rb", r"a\x0db"),
        ("\u202e", r"\u202e"),
        ("\U000e0041", r"\U000e0041"),
    ],
)
def test_what_was_hidden_is_spelled_out(text: str, shown: str) -> None:
    assert visible(text) == shown


@given(st.text(st.characters(codec=None, categories=None)))
def test_well_formed_text_can_be_stored(text: str) -> None:
    assert well_formed(text).encode("utf-8").decode("utf-8") == well_formed(text)
