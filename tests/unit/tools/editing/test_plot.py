"""The plot is the same for the same numbers, and foreign text in it is inert."""

from xml.etree import ElementTree

from dragoman.core.records import JsonObject
from dragoman.tools.editing.plot import draw_methods

ROWS: JsonObject = {
    "edited": {"efficacy": 1.0, "paraphrase_efficacy": None, "neighbourhood_specificity": 0.9},
    "no edit": {"efficacy": 0.0},
}


def test_same_numbers_same_bytes() -> None:
    first = draw_methods("capital: edits at layer 3", ROWS)
    assert first == draw_methods("capital: edits at layer 3", ROWS)
    assert "<dc:date>" not in first
    assert "neighbourhood specificity" in first


def test_a_hostile_name_stays_text() -> None:
    drawn = draw_methods("<script>alert(1)</script> $x^2$ \u202e", ROWS)
    root = ElementTree.fromstring(drawn)
    assert not [element for element in root.iter() if element.tag.endswith("script")]
    assert "\u202e" not in drawn
