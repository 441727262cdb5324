"""The heat map of a lens in the terminal: drawn from a tool's output, hostile text shown safely."""

from typing import Any

import pytest

from dragoman.tui.widgets.heat_map import HeatMap, heat_of

OUTPUT: dict[str, Any] = {
    "what": "probability of 'Lima'",
    "tokens": ["Pe\x1b[31mru", " is"],
    "layers": [0, 1, 2],
    "tenths": ["00", "50", "91"],
}


def test_a_line_for_each_token_and_a_column_for_each_layer() -> None:
    heat = heat_of({"heat": OUTPUT})
    assert heat is not None
    lines = str(HeatMap(heat).content).splitlines()
    assert lines[0].startswith("probability of 'Lima'  layers 0 to 2")
    assert lines[1].startswith("Pe")
    assert lines[1].endswith(" ▒█")
    assert lines[2].startswith("is ")
    assert lines[2].endswith("  ·")
    assert len({len(line) for line in lines[1:]}) == 1
    assert "\x1b" not in "".join(lines)


@pytest.mark.parametrize(
    "damage",
    [
        {"tenths": ["00", "5", "91"]},
        {"tenths": ["00", "xy", "91"]},
        {"tenths": ["00"]},
        {"layers": [], "tenths": []},
        {"tokens": 3},
    ],
)
def test_what_cannot_be_drawn_is_left_out(damage: dict[str, Any]) -> None:
    assert heat_of({"heat": {**OUTPUT, **damage}}) is None
    assert heat_of({}) is None
