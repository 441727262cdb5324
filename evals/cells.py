"""Cells of the Markdown tables that the evals write."""

from collections.abc import Iterable

from dragoman.core.escaping import visible
from dragoman.core.records import Measurement


def cell(text: str) -> str:
    """Text that neither ends its cell nor its line; control characters are shown, not obeyed."""
    return visible(text, one_line=True).replace("\\", "\\\\").replace("|", "\\|")


def line(cells: Iterable[str]) -> str:
    """One row of a table."""
    return f"| {' | '.join(map(cell, cells))} |"


def ranged(measured: Measurement | None) -> str:
    """A value with its interval; 'none' where nothing was measured."""
    if measured is None:
        return "none"
    low, high = measured.ci95
    return f"{measured.value:.2f} [{low:.2f}, {high:.2f}]"


def plain(measured: Measurement | None) -> str:
    """A value alone; nothing where nothing was measured."""
    return "" if measured is None else f"{measured.value:.2f}"


def two_digits(value: float | None) -> str:
    """A number; 'none' where there is none."""
    return "none" if value is None else f"{value:.2f}"
