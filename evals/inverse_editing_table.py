"""The table of the inverse editing eval: the inverse, REMEDI and every baseline side by side."""

from collections.abc import Sequence
from statistics import fmean

from dragoman.core.escaping import visible
from dragoman.core.records import Measurement, ToolResult
from dragoman.evals.cells import line, plain, ranged
from dragoman.tools.circuits.edit_tool import REMEDI, SWAPPED, UNMAPPED
from dragoman.tools.editing.directions import PREFIX, RANDOM
from dragoman.tools.editing.metrics import harmonic_mean
from dragoman.tools.statistics import bootstrap

METRICS = ("efficacy", "paraphrase_efficacy", "neighbourhood_specificity")
METHODS = ("", REMEDI, SWAPPED, UNMAPPED, PREFIX, RANDOM)
"""Scopes of the measurements; the first is the inverse itself."""

_INTRODUCTION = """# Editing {subject} through the inverse of a relation's map

`edit_through_relation`: h of an entity moves by the inverse of the relation's map (Hernandez et
al. 2024, arXiv:2308.09124) times the change of z, without any training; *REMEDI* is the trained
editor (Hernandez, Li and Andreas 2023, arXiv:2304.00740) on the same held-out entities, new objects
and probes. Each chose its layer, and rank and form or strength, on the same validation entities.
*Donor's h*: the whole h of an entity that has the new object. *Without map*: the change of z added
to h, as long as the edit. Intervals are 95%, n counts entities; specificity counts other entities
that keep their answer.

| relation | n | layer, rank | efficacy: inverse | REMEDI | donor's h | without map | prefix \
| random | paraphrase: inverse | REMEDI | specificity: inverse | REMEDI |
|---|---:|---|---|---|---:|---:|---:|---:|---|---|---|---|
"""


def render(
    rows: Sequence[tuple[str, ToolResult]],
    *,
    subject: str,
    command: str,
    seconds: float,
    n_codes: int,
) -> str:
    """The whole page in Markdown."""
    judged = [(name, result) for name, result in rows if result.status == "ok"]
    lines = [_line(name, result) for name, result in judged]
    if judged:
        lines += ["", *_means([result for _, result in judged])]
    refused = [(name, result) for name, result in rows if result.status != "ok"]
    if refused:
        lines += ["", "No figure:", ""]
        lines += [
            f"- `{name}`: {visible(result.error or result.summary, one_line=True)}"
            for name, result in refused
        ]
    lines += [
        "",
        f"Made by `{command}`: {len(rows)} relations, {seconds / 60:.0f} minutes of CPU time.",
    ]
    if n_codes > 1:
        lines += ["", f"The rows were counted by {n_codes} versions of the tools."]
    return _INTRODUCTION.format(subject=visible(subject, one_line=True)) + "\n".join(lines) + "\n"


def balance(result: ToolResult, scope: str) -> float | None:
    """Harmonic mean of efficacy, paraphrase efficacy and specificity; None if one is missing."""
    found = [_find(result, metric, scope) for metric in METRICS]
    values = [each.value for each in found if each is not None]
    return harmonic_mean(values) if len(values) == len(METRICS) else None


def _find(result: ToolResult, metric: str, scope: str) -> Measurement | None:
    among = result.measurements if not scope else result.controls
    return next((each for each in among if (each.metric, each.scope) == (metric, scope)), None)


def _line(name: str, result: ToolResult) -> str:
    first = _find(result, "efficacy", "")
    cells = [
        f"`{name}`",
        "" if first is None else str(first.n),
        f"{result.output['layer']}, {result.output['rank']}"
        f"{' (fades out)' if result.output.get('damped') else ''}",
        *(ranged(_find(result, "efficacy", scope)) for scope in METHODS[:2]),
        *(plain(_find(result, "efficacy", scope)) for scope in METHODS[2:]),
        *(ranged(_find(result, metric, scope)) for metric in METRICS[1:] for scope in METHODS[:2]),
    ]
    return line(cells)


def _means(results: Sequence[ToolResult]) -> list[str]:
    """Every method's means over the relations, and on how many the inverse is ahead of REMEDI."""
    lines = [
        "Means over relations. *Balance*: the harmonic mean of the three. A method that could not "
        "be used on a relation is missing from its mean.",
        "",
        "| method | efficacy | paraphrase | specificity | balance |",
        "|---|---:|---:|---:|---:|",
    ]
    for scope in METHODS:
        cells = [scope or "inverse of the map"]
        for metric in METRICS:
            found = (_find(result, metric, scope) for result in results)
            cells.append(_mean([each.value for each in found if each is not None]))
        cells.append(
            _mean([one for result in results if (one := balance(result, scope)) is not None])
        )
        lines.append(line(cells))
    pairs = [(balance(result, ""), balance(result, REMEDI)) for result in results]
    both = [(ours, theirs) for ours, theirs in pairs if ours is not None and theirs is not None]
    ahead, equal = sum(a > b for a, b in both), sum(a == b for a, b in both)
    told = (
        f"- The inverse is ahead of REMEDI in balance on {ahead} of {len(both)} relations, equal "
        f"on {equal}"
    )
    if both:
        leads = [ours - theirs for ours, theirs in both]
        low, high = bootstrap(leads, seed=0)
        told += f"; balance less REMEDI's: {fmean(leads):+.2f} [{low:+.2f}, {high:+.2f}]"
    return [*lines, "", f"{told}."]


def _mean(values: Sequence[float]) -> str:
    return f"{fmean(values):.2f}" if values else ""
