"""One row for each thing that a method had to find or to leave alone, and the table of them."""

from collections.abc import Sequence
from statistics import NormalDist
from typing import NamedTuple

from dragoman.core.escaping import visible
from dragoman.core.records import Measurement
from dragoman.evals.cells import line, ranged


class Row(NamedTuple):
    """One thing that a method had to find, or had to leave alone."""

    method: str
    planted: str
    metric: str
    there: bool
    """Whether the subject holds it; the twin never does."""
    subject: Measurement | None
    """None: the tool declined to give a number."""
    twin: Measurement | None
    remark: str = ""

    @property
    def negatives(self) -> int:
        """How many of its measurements are of what is not there."""
        return sum(each is not None for each in (self.twin, None if self.there else self.subject))


class Table(NamedTuple):
    """The rows of one planted subject, judged together."""

    seed: int
    rows: tuple[Row, ...]

    def verdict(self, row: Row) -> str:
        """In words; capitals where something is not as it has to be.

        What is there must be found at 95%. What is not there is looked for many times, so its
        intervals are widened until all of them together err as often as one (Bonferroni).
        """
        tests = max(1, sum(each.negatives for each in self.rows))
        if found(row.twin, tests=tests):
            return "FOUND IN THE TWIN"
        if row.there:
            return "recovered" if found(row.subject) else "MISSED"
        return "FOUND WHAT IS NOT THERE" if found(row.subject, tests=tests) else "nothing found"

    @property
    def faults(self) -> tuple[Row, ...]:
        """The rows that are not as they have to be."""
        return tuple(row for row in self.rows if self.verdict(row).isupper())


def found(measured: Measurement | None, *, tests: int = 1) -> bool:
    """The rule of the claims: the interval lies above the control, its interval included."""
    if measured is None:
        return False
    factor = NormalDist().inv_cdf(1 - 0.025 / tests) / NormalDist().inv_cdf(0.975)
    low = measured.value - (measured.value - measured.ci95[0]) * factor
    control = measured.baseline if measured.baseline_ci95 is None else measured.baseline_ci95[1]
    return low > control


_INTRODUCTION = """# Planted truth

A small transformer whose facts, relation map and units were written down by hand
(`tools/subjects/planted.py`), and a twin made of the same weights in another order, which knows
the same facts and holds none of this where the methods look. Each method runs exactly as the agent
runs it. *Recovered* means that the 95% interval of the subject lies above that of its control, and
that of the twin does not. What is not there must not be found; those intervals are widened, so that
all of them together err as often as one does.

| method | planted | metric | subject [95%] | its control | twin [95%] | n | verdict | |
|---|---|---|---|---|---|---:|---|---|
"""


def render(tables: Sequence[Table], command: str, seconds: float) -> str:
    """Markdown: the first subject's rows, then how the other subjects fared."""
    first, *others = tables
    lines = [_line(row, first.verdict(row)) for row in first.rows]
    lines += ["", _outcome(first)]
    lines += [_outcome(table) for table in others]
    lines += ["", f"Made by `{command}` in {seconds / 60:.1f} minutes."]
    return _INTRODUCTION + "\n".join(lines) + "\n"


def _line(row: Row, verdict: str) -> str:
    measured = row.subject
    cells = (
        f"`{row.method}`",
        row.planted,
        row.metric,
        ranged(measured),
        "" if measured is None else f"{measured.baseline:.2f}",
        ranged(row.twin),
        "" if measured is None else str(measured.n),
        verdict,
        row.remark,
    )
    return line(cells)


def _outcome(table: Table) -> str:
    n_right = len(table.rows) - len(table.faults)
    said = "; ".join(
        f"{row.method}, {row.planted}, {row.metric}: {table.verdict(row)}" for row in table.faults
    )
    return (
        f"- Planted with seed {table.seed}: {n_right} of {len(table.rows)} rows as they have to "
        f"be{'. ' + visible(said, one_line=True) if said else ''}."
    )
