"""The attribute lens in characters: what a terminal shows of the heat map."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dragoman.tools.circuits.lens import LensMap


def shade(read: "LensMap") -> str:
    """The heat map in characters: a line for each layer, a column for each token."""
    cells = read.object_probability or read.probability
    what = f"probability of {read.object!r}" if read.object else "probability of the best token"
    lines = [f"{what}: ' ' 0  '░' .2  '▒' .4  '▓' .6  '█' .8 and more"]
    for layer, row in reversed(list(zip(read.layers, cells, strict=True))):
        lines.append(f"{layer:>4} " + "".join(" ░▒▓█"[min(4, int(cell * 5))] * 2 for cell in row))
    lines += [
        f"{place:>4} {token!r}: the output says {said!r}, layer {read.layers[best]} reads {word!r}"
        for place, (token, said) in enumerate(zip(read.tokens, read.output, strict=True))
        for best in [max(range(len(cells)), key=lambda at: cells[at][place])]
        for word in [read.read[best][place][0]]
    ]
    return "\n".join(lines)
