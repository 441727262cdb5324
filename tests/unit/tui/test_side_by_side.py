"""Two texts beside each other."""

from dragoman.tui.commands.side_by_side import columns, moved, show_edit


def test_texts_stand_in_columns_of_one_width() -> None:
    lines = columns("one two three four five", "six", ("before", "after"), 51)
    assert lines[0] == "before" + " " * 21 + "after"
    assert lines[2] == "one two three four five" + " " * 4 + "six"
    assert all(len(line) <= 51 for line in lines)


def test_a_long_text_wraps_and_an_empty_one_is_said() -> None:
    lines = columns("word " * 12, "", ("before", "after"), 51)
    assert len(lines) == 5
    assert lines[2].endswith("(nothing)")


def test_what_a_subject_wrote_cannot_steer_the_terminal() -> None:
    shown = show_edit(
        {
            "prompt": "The capital of France is",
            "entity": "France",
            "old_object": "Paris",
            "new_object": "\u001b[2JRome",
            "before": "Paris\u001b]0;title\u0007",
            "after": "Rome\r\nand more",
            "probabilities": {
                "old_before": 0.5,
                "old_after": 0.0,
                "new_before": 0.01,
                "new_after": 0.75,
            },
        },
        80,
    )
    text = "\n".join(shown)
    assert not any(mark in text for mark in "\u001b\u0007\r")
    assert "0.500" in text
    assert "0.750" in text


def test_a_probability_has_a_bar_as_long_as_itself() -> None:
    assert moved("Rome", 0.0, 1.0).count("█") == 20
