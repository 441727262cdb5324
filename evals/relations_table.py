"""The table of the relations eval: each relation, and means beside the published ones."""

from collections.abc import Iterable, Sequence
from statistics import fmean
from typing import NamedTuple

import numpy as np

from dragoman.core.escaping import visible
from dragoman.core.records import Measurement
from dragoman.evals.cells import line, plain, ranged
from dragoman.tools.circuits.measuring import (
    WHOLE,
    measure_causality,
    measure_faithfulness,
    measure_known,
    spread,
)
from dragoman.tools.circuits.trial import CUT, SWAPPED_H
from dragoman.tools.circuits.trial_record import TrialRecord
from dragoman.tools.circuits.verdicts import ENOUGH, Verdict, judge
from dragoman.tools.relations import KINDS, RelationKind
from dragoman.tools.statistics import Floats, Interval, bootstrap, wilson

MINIMUM_KNOWN = 12
"""Different known held-out facts that a relation needs to enter a mean."""

PUBLISHED_FAITHFULNESS = {
    "factual": 0.64,
    "linguistic": 0.83,
    "commonsense": 0.78,
    "bias": 0.91,
}
PUBLISHED_CAUSALITY = {"factual": 0.72, "linguistic": 0.92, "commonsense": 0.88, "bias": 0.98}
PUBLISHED_SHARE = 0.48
PUBLISHED_CORRELATION = 0.84


class Judged(NamedTuple):
    """One relation over all its splits."""

    name: str
    kind: RelationKind
    n_splits: int
    known: Measurement
    faithfulness: Measurement | None
    causality: Measurement | None
    checks: tuple[Measurement, ...]
    by_split: list[float]
    verdict: Verdict

    @property
    def counts(self) -> bool:
        """Whether enough known facts were held out for the means."""
        return self.faithfulness is not None and self.faithfulness.n >= MINIMUM_KNOWN

    def check(self, metric: str, scope: str | None = None) -> Measurement | None:
        """The first check of that name."""
        found = (e for e in self.checks if e.metric == metric and scope in (None, e.scope))
        return next(found, None)


def gather(rows: Iterable[tuple[str, RelationKind, TrialRecord]]) -> list[Judged]:
    """Rows of one relation together, in the order of kinds and names."""
    trials: dict[tuple[str, RelationKind], list[TrialRecord]] = {}
    for name, kind, trial in rows:
        trials.setdefault((name, kind), []).append(trial)
    judged = []
    for (name, kind), splits in trials.items():
        read, edited = measure_faithfulness(splits), measure_causality(splits)
        judged.append(
            Judged(
                name,
                kind,
                len(splits),
                measure_known(splits),
                read[0] if read else None,
                edited[0] if edited else None,
                (read[1] if read else ()) + (edited[1] if edited else ()),
                spread(splits, "faithfulness"),
                judge(splits),
            )
        )
    return sorted(judged, key=lambda each: (KINDS.index(each.kind), each.name))


def correlation(pairs: Sequence[tuple[float, float]], seed: int = 0) -> tuple[float, Interval]:
    """Pearson's, over relations, with a bootstrap interval; at least three pairs."""
    values = np.asarray(pairs, dtype=np.float64)
    if len(values) < 3:
        raise ValueError("a correlation needs at least three relations")

    def of(drawn: Floats) -> Floats:
        centred = drawn - drawn.mean(axis=1, keepdims=True)
        product = (centred[..., 0] * centred[..., 1]).sum(axis=1)
        size = np.sqrt((centred**2).sum(axis=1).prod(axis=1))
        # A resample of one relation alone has no correlation: it counts as none.
        quotient: Floats = np.divide(product, size, out=np.zeros_like(product), where=size > 0)
        return quotient

    value = float(of(values[None])[0])
    low, high = bootstrap(values, seed, statistic=of)
    return value, Interval(min(low, value), max(high, value))


_INTRODUCTION = """# Relations of {subject}

Linear relational embeddings (Hernandez et al. 2024, arXiv:2308.09124) of every relation: Jacobians
of leave-one-out prompts, layer, beta and rank chosen on validation facts, all numbers from test
facts that no choice has seen. *n*: different known test facts over {splits}; intervals are
the wider of Wilson's over facts and Student's over splits. *Best rival*: the strongest of shuffled
relation, bias alone, logit lens (identity), translation, linear regression, embedding map, majority
object and random-weight twin. *Whole*: the answer is the object, or begins no other object of the
relation. *As published*: edits through an inverse that is cut at a rank; *causality* lets it fade
out there where validation facts say so. *swap-h*: the target's whole h put in place, which no map
takes part in.

| relation | kind | splits | known | n | faithfulness [95%] | by split | best rival | whole \
| recall@3 | causality [95%] | best control | as published | swap-h | verdict |
|---|---|---:|---:|---:|---|---|---|---:|---:|---|---|---:|---:|---|
"""


def render(
    rows: Iterable[tuple[str, RelationKind, TrialRecord]],
    *,
    subject: str,
    command: str,
    seconds: float,
    n_codes: int,
    missing: Sequence[str] = (),
) -> str:
    """The whole page in Markdown; `missing` relations have no row yet."""
    kept = list(rows)
    judged = gather(kept)
    n_seeds = len({trial.seed for _, _, trial in kept})
    splits = "one split" if n_seeds == 1 else f"{n_seeds} splits"
    lines = [_line(each) for each in judged]
    lines += ["", *_means(judged), "", *_across(judged)]
    lines += ["", *_reasons(judged)]
    each = seconds / max(1, len(kept))
    lines += [
        "",
        f"Made by `{command}`: {len(kept)} splits, {seconds / 60:.0f} minutes, "
        f"{each:.0f} s a split.",
    ]
    if missing:
        names = ", ".join(f"`{visible(name, one_line=True)}`" for name in missing)
        lines += ["", f"Asked for and on no split measured yet: {names}."]
    if n_codes > 1:
        lines += ["", f"The rows were counted by {n_codes} versions of the tools."]
    name = visible(subject, one_line=True)
    return _INTRODUCTION.format(subject=name, splits=splits) + "\n".join(lines) + "\n"


def _line(judged: Judged) -> str:
    faithfulness, causality = judged.faithfulness, judged.causality
    spread = ""
    if len(judged.by_split) > 1:
        spread = f"{min(judged.by_split):.2f} to {max(judged.by_split):.2f}"
    cells = (
        f"`{judged.name}`",
        judged.kind,
        str(judged.n_splits),
        f"{judged.known.value:.2f}",
        "" if faithfulness is None else str(faithfulness.n),
        ranged(faithfulness),
        spread,
        _control(faithfulness),
        plain(judged.check(WHOLE)),
        plain(judged.check("recall_at_3")),
        ranged(causality),
        _control(causality),
        plain(judged.check("causality", CUT)),
        plain(judged.check("causality", SWAPPED_H)),
        judged.verdict.label,
    )
    return line(cells)


def _means(judged: Sequence[Judged]) -> list[str]:
    lines = [
        f"Means over relations with at least {MINIMUM_KNOWN} known held-out facts, with bootstrap "
        "intervals over relations; GPT-J as published:",
        "",
        "| kind | relations | faithfulness [95%] | GPT-J | causality [95%] | as published [95%] "
        "| GPT-J |",
        "|---|---:|---|---:|---|---|---:|",
    ]
    for kind in KINDS:
        counted = [each for each in judged if each.kind == kind and each.counts]
        faithfulness = [each.faithfulness.value for each in counted if each.faithfulness]
        causality = [each.causality.value for each in counted if each.causality]
        cut = [found.value for each in counted if (found := each.check("causality", CUT))]
        lines.append(
            f"| {kind} | {len(counted)} | {_mean(faithfulness)} | "
            f"{PUBLISHED_FAITHFULNESS[kind]:.2f} | {_mean(causality)} | {_mean(cut)} | "
            f"{PUBLISHED_CAUSALITY[kind]:.2f} |"
        )
    return lines


def _across(judged: Sequence[Judged]) -> list[str]:
    counted = [each for each in judged if each.counts]
    values = [each.faithfulness.value for each in counted if each.faithfulness]
    above = sum(value > ENOUGH for value in values)
    lines = []
    if values:
        low, high = wilson(above, len(values))
        lines.append(
            f"- Faithfulness above {ENOUGH}: {above} of {len(values)} relations, "
            f"{above / len(values):.2f} [{low:.2f}, {high:.2f}]; GPT-J {PUBLISHED_SHARE:.2f}."
        )
    pairs = [
        (each.faithfulness.value, each.causality.value)
        for each in counted
        if each.faithfulness and each.causality
    ]
    if len(pairs) >= 3:
        value, (low, high) = correlation(pairs)
        lines.append(
            f"- Correlation of faithfulness and causality over {len(pairs)} relations: "
            f"{value:.2f} [{low:.2f}, {high:.2f}]; GPT-J {PUBLISHED_CORRELATION:.2f}."
        )
    left_out = [each.name for each in judged if not each.counts]
    if left_out:
        names = ", ".join(f"`{visible(name, one_line=True)}`" for name in left_out)
        lines.append(f"- In no mean, for fewer than {MINIMUM_KNOWN} known held-out facts: {names}.")
    return lines


def _reasons(judged: Sequence[Judged]) -> list[str]:
    return [
        f"- `{visible(each.name, one_line=True)}`: {visible(str(each.verdict), one_line=True)}."
        for each in judged
    ]


def _mean(values: Sequence[float]) -> str:
    if not values:
        return "none"
    value = fmean(values)
    low, high = bootstrap(values, 0)
    return f"{value:.2f} [{min(low, value):.2f}, {max(high, value):.2f}]"


def _control(measured: Measurement | None) -> str:
    return "" if measured is None else f"{measured.control} {measured.baseline:.2f}"
