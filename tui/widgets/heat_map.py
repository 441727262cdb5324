"""A heat map in text: a line for each token, a column for each layer."""

from typing import Annotated

from pydantic import Field, ValidationError
from textual.content import Content
from textual.widgets import Static

from dragoman.core.records import JsonObject, Record
from dragoman.tui.widgets.safe_text import shown

_SHADES = " ·░░▒▒▓▓██"
"""By tenth."""
_LABEL_CELLS = 16


class Heat(Record):
    """What a tool leaves under `heat` in its output: see `LensMap.heat`."""

    what: str
    tokens: tuple[str, ...]
    layers: tuple[int, ...]
    tenths: tuple[Annotated[str, Field(pattern=r"^[0-9]*$")], ...]
    """For each layer a digit for each token."""


class HeatMap(Static):
    """The tokens of a text from top to bottom, layers from left to right."""

    def __init__(self, heat: Heat) -> None:
        first, last = heat.layers[0], heat.layers[-1]
        lines = [
            Content.assemble(
                shown(heat.what, one_line=True, limit=80),
                (f"  layers {first} to {last}; ░ .2  ▒ .4  ▓ .6  █ .8 and more", "$text-muted"),
            )
        ]
        for place, token in enumerate(heat.tokens):
            cells = "".join(_SHADES[int(row[place])] for row in heat.tenths)
            label = shown(token.strip(), "$text-muted", one_line=True, limit=_LABEL_CELLS)
            padding = " " * max(1, _LABEL_CELLS + 1 - label.cell_length)
            lines.append(Content.assemble(label, padding, (cells, "$primary")))
        super().__init__(Content("\n").join(lines), markup=False, classes="plot")


def heat_of(output: JsonObject) -> Heat | None:
    """The heat map in a tool's output; None where there is none that can be drawn."""
    try:
        heat = Heat.model_validate(output.get("heat"))
    except ValidationError:
        return None
    whole = all(len(row) == len(heat.tokens) for row in heat.tenths)
    return heat if whole and heat.layers and len(heat.tenths) == len(heat.layers) else None
