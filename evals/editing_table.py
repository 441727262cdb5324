"""The table of the editing eval: goals, every baseline, the published figures, the sweeps."""

from collections.abc import Sequence
from statistics import fmean

from dragoman.core.escaping import visible
from dragoman.evals.cells import line, ranged
from dragoman.evals.editing_row import Row
from dragoman.evals.editing_why import GOALS, beside_prompts, swept
from dragoman.tools.editing.directions import EDITED, NO_EDIT

FLUENCY_WITHIN = 0.03
ENOUGH_RELATIONS = 8

# Hernandez, Li and Andreas 2023, GPT-J on CounterFact; fluency there is 100 times the entropy.
PUBLISHED = (
    ("REMEDI", "98.2", "100 (set, not measured)", "29.9", "4.86", "24.8"),
    ("prefix", "about 80", "", "", "", ""),
    ("ROME", "100", "79", "43", "6.20", "27"),
)

_INTRODUCTION = """# Representation editing on {subject}

An editor (REMEDI, Hernandez, Li and Andreas 2023, arXiv:2304.00740) is trained for each relation \
and judged on entities that it never saw. Layer, strength and stopping were chosen on validation \
entities; the paraphrase is a template that neither training nor choosing used. Intervals are 95%, \
n counts entities. *Harmonic*: the harmonic mean of efficacy, paraphrase efficacy, neighbourhood \
specificity, essence and fluency (its share of the unedited text's). *Lead*: that above the best \
baseline's, paired over entities.

Goals: efficacy ≥ .98, paraphrase ≥ .90, specificity ≥ .95, fluency within 3% of unedited text, \
harmonic mean above every baseline's.

| relation | known | n | layer | strength | efficacy | paraphrase | specificity | fluency \
| essence | harmonic | best baseline | lead | missed |
|---|---:|---:|---:|---:|---|---|---|---:|---|---|---|---|---|
"""


def missed(row: Row) -> list[str]:
    """The goals that a relation misses, by name; what could not be measured is missed."""
    names = []
    for metric, least in GOALS.items():
        found = row.figure(metric)
        if found is None or found.value < least:
            names.append(metric.replace("_", " "))
    change = fluency_change(row)
    if change is None or abs(change) > FLUENCY_WITHIN:
        names.append("fluency")
    if row.lead[0] <= 0:
        names.append("best")
    return names


def fluency_change(row: Row) -> float | None:
    """Relative to unedited text; negative for more repetition."""
    found = row.figure("fluency")
    return None if found is None else found.value / found.baseline - 1


def render(rows: Sequence[Row], *, subject: str, command: str) -> str:
    """The whole page in Markdown."""
    judged = [row for row in rows if not row.refused]
    lines = [_line(row) for row in judged]
    lines += ["", *_counts(judged), "", *_methods(judged), "", *_published(judged)]
    refused = [f"- `{row.relation}`: {row.refused}" for row in rows if row.refused]
    if refused:
        lines += ["", "Not judged:", "", *(visible(one, one_line=True) for one in refused)]
    if judged:
        lines += ["", *beside_prompts(judged)]
    for row in judged:
        if row.sweep:
            lines += ["", *swept(row, missed(row))]
    seconds = sum(row.seconds for row in rows)
    lines += [
        "",
        f"Made by `{command}`: {len(rows)} relations, {seconds / 60:.0f} processor minutes.",
    ]
    if len({row.code for row in rows}) > 1:
        lines += ["", "The rows were counted by different versions of the tools."]
    name = visible(subject, one_line=True)
    return _INTRODUCTION.format(subject=name) + "\n".join(lines) + "\n"


def _line(row: Row) -> str:
    change = fluency_change(row)
    harmonic = row.figure("harmonic_mean")
    rival = "" if harmonic is None else harmonic.control.removesuffix(", the best baseline")
    cells = (
        f"`{row.relation}`",
        f"{row.n_known} of {row.n_facts}",
        str(row.n_entities),
        str(row.layer),
        f"{row.strength:g}",
        *(ranged(row.figure(metric)) for metric in GOALS),
        "none" if change is None else f"{change:+.1%}",
        ranged(row.figure("essence")),
        ranged(harmonic),
        "" if harmonic is None else f"{rival} {harmonic.baseline:.2f}",
        f"{row.lead[0]:+.2f} [{row.lead[1]:+.2f}, {row.lead[2]:+.2f}]",
        ", ".join(missed(row)) or "none",
    )
    return line(cells)


def _counts(rows: Sequence[Row]) -> list[str]:
    lines = []
    for metric, least in GOALS.items():
        met = sum((one := row.figure(metric)) is not None and one.value >= least for row in rows)
        lines.append(f"- {metric.replace('_', ' ')} ≥ {least}: {met} of {len(rows)} relations")
    changes = [fluency_change(row) for row in rows]
    near = sum(one is not None and abs(one) <= FLUENCY_WITHIN for one in changes)
    lines.append(f"- fluency within 3%: {near} of {len(rows)}")
    ahead = sum(row.lead[0] > 0 for row in rows)
    sure = sum(row.lead[1] > 0 for row in rows)
    lines.append(
        f"- harmonic mean above every baseline's: {ahead} of {len(rows)}, in {sure} of them with "
        "the whole interval of the lead above 0"
    )
    whole = sum(not missed(row) for row in rows)
    reached = "reached" if whole >= ENOUGH_RELATIONS else "not reached"
    lines.append(
        f"- **all goals at once: {whole} of {len(rows)}** (the aim, {ENOUGH_RELATIONS}: {reached})"
    )
    return lines


def _methods(rows: Sequence[Row]) -> list[str]:
    """Means over relations of every method's figures."""
    columns = (
        "efficacy",
        "paraphrase_efficacy",
        "neighbourhood_specificity",
        "fluency",
        "consistency",
        "essence",
        "collateral_kl",
        "harmonic_mean",
    )
    lines = [
        "Means over relations; fluency in bits, collateral in nats. A method that is missing for a "
        "relation is missing from its mean.",
        "",
        "| method | " + " | ".join(column.replace("_", " ") for column in columns) + " |",
        "|---|" + "---:|" * len(columns),
    ]
    for method in dict.fromkeys(method for row in rows for method in row.methods):
        cells = []
        for column in columns:
            values = [value for row in rows if (value := row.of(method, column)) is not None]
            cells.append(f"{fmean(values):.2f}" if values else "")
        lines.append(line([method, *cells]))
    return lines


def _published(rows: Sequence[Row]) -> list[str]:
    lines = [
        "Published for GPT-J on CounterFact (another subject, other data: a bearing, no contest), "
        "in percent, fluency in bits:",
        "",
        "| | efficacy | neighbourhood | consistency | fluency | essence |",
        "|---|---:|---:|---:|---:|---:|",
        *(f"| {' | '.join(cells)} |" for cells in PUBLISHED),
    ]
    for method, name in ((EDITED, "ours, mean of the relations"), (NO_EDIT, "ours, no edit")):
        cells = []
        for metric, scale in (
            ("efficacy", 100),
            ("neighbourhood_specificity", 100),
            ("consistency", 100),
            ("fluency", 1),
            ("essence", 100),
        ):
            values = [value for row in rows if (value := row.of(method, metric)) is not None]
            shown = "" if not values else f"{scale * fmean(values):.{2 if scale == 1 else 1}f}"
            cells.append(shown)
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines
