"""Why a goal of the editing eval is missed: what a prompt does that says the same, and sweeps."""

from collections.abc import Sequence
from statistics import fmean

from dragoman.evals.cells import line
from dragoman.evals.editing_row import Row
from dragoman.tools.editing.directions import EDITED, NO_EDIT, PREFIX, REPLACED
from dragoman.tools.editing.selection import StrengthTrial
from dragoman.tools.statistics import bootstrap

EFFICACY, PARAPHRASE, SPECIFICITY = (
    "efficacy",
    "paraphrase_efficacy",
    "neighbourhood_specificity",
)
GOALS = {EFFICACY: 0.98, PARAPHRASE: 0.90, SPECIFICITY: 0.95}


def beside_prompts(rows: Sequence[Row]) -> list[str]:
    """How neighbours and fluency fare where the prompt itself says what the edit says."""
    lines = [
        "## The same, said by the prompt",
        "",
        f"*{REPLACED.capitalize()}*: the prompt is about another entity, one that truly has the "
        "new object; *prefix*: the new fact is stated before it. Nothing is edited: a reference "
        "for what the subject does with a neighbour's question once the new object is in view, and "
        "no bound. *Sweep*: the best specificity of any layer and strength whose efficacy is at "
        f"least {GOALS[EFFICACY]} and paraphrase efficacy at least {GOALS[PARAPHRASE]}, on "
        "validation entities; as the best of many it is optimistic. n and intervals of the edit "
        "stand above; all columns of the first three are over the same entities.",
        "",
        "| relation | specificity, edited | replaced entity | prefix | sweep, editor | "
        "sweep, mean difference | fluency, edited | replaced entity |",
        "|---|---:|---:|---:|---|---|---:|---:|",
    ]
    for row in rows:
        cells = (
            f"`{row.relation}`",
            *(_shown(row.of(method, SPECIFICITY)) for method in (EDITED, REPLACED, PREFIX)),
            _best([(one.layer, one.editor) for one in row.sweep]),
            _best([(one.layer, one.mean_difference) for one in row.sweep]),
            *(_change(row, method) for method in (EDITED, REPLACED)),
        )
        lines.append(line(cells))
    pairs = [
        (edited, replaced)
        for row in rows
        if (edited := row.of(EDITED, SPECIFICITY)) is not None
        and (replaced := row.of(REPLACED, SPECIFICITY)) is not None
    ]
    if pairs:
        differences = [edited - replaced for edited, replaced in pairs]
        low, high = bootstrap(differences, 0)
        below = sum(replaced < GOALS[SPECIFICITY] for _, replaced in pairs)
        lines += [
            "",
            f"Replaced entities are below {GOALS[SPECIFICITY]} in {below} of {len(pairs)} "
            f"relations; edited less replaced: {fmean(differences):+.2f} [{low:+.2f}, {high:+.2f}] "
            "(bootstrap over relations).",
        ]
    some = [row for row in rows if row.sweep]
    if some:
        within = sum(any(_reaches(trial) for trial in _trials(row)) for row in some)
        lines += [
            "",
            f"Efficacy, paraphrase efficacy and specificity are all at their goals at some layer "
            f"and strength of the sweep in {within} of {len(some)} relations.",
        ]
    return lines


def swept(row: Row, missed: Sequence[str]) -> list[str]:
    """Layers and strengths of one relation."""
    lines = [
        f"Why `{row.relation}` misses {', '.join(missed)}: short trainings at other layers, "
        "on validation entities. Efficacy / paraphrase / specificity / essence → harmonic mean, at "
        "each strength.",
        "",
        "| layer | method | "
        + " | ".join(f"{trial.strength:g}" for trial in row.sweep[0].editor)
        + " |",
        "|---:|---|" + "---|" * len(row.sweep[0].editor),
    ]
    for one in row.sweep:
        for name, trials in (("editor", one.editor), ("mean difference", one.mean_difference)):
            if trials:
                lines.append(f"| {one.layer} | {name} | " + " | ".join(map(_trial, trials)) + " |")
    return lines


def _trial(trial: StrengthTrial) -> str:
    shown = (
        trial.efficacy,
        trial.paraphrase_efficacy,
        trial.neighbourhood_specificity,
        trial.essence,
    )
    figures = " / ".join(_shown(one) or "none" for one in shown)
    return f"{figures} → {trial.score:.2f}"


def _trials(row: Row) -> list[StrengthTrial]:
    return [trial for one in row.sweep for trial in (*one.editor, *one.mean_difference)]


def _holds(trial: StrengthTrial) -> bool:
    return (
        trial.efficacy >= GOALS[EFFICACY]
        and (trial.paraphrase_efficacy or 0.0) >= GOALS[PARAPHRASE]
    )


def _reaches(trial: StrengthTrial) -> bool:
    return _holds(trial) and (trial.neighbourhood_specificity or 0.0) >= GOALS[SPECIFICITY]


def _best(tried: Sequence[tuple[int, Sequence[StrengthTrial]]]) -> str:
    """The most specific of what takes hold as it should, and where."""
    holding = [
        (trial.neighbourhood_specificity, layer, trial.strength)
        for layer, trials in tried
        for trial in trials
        if trial.neighbourhood_specificity is not None and _holds(trial)
    ]
    if not any(trials for _, trials in tried):
        return "not swept"
    if not holding:
        return "none holds so"
    specificity, layer, strength = max(holding, key=lambda one: one[0])
    return f"{specificity:.2f} (layer {layer}, strength {strength:g})"


def _change(row: Row, method: str) -> str:
    found, before = row.of(method, "fluency"), row.of(NO_EDIT, "fluency")
    return "" if found is None or not before else f"{found / before - 1:+.1%}"


def _shown(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
