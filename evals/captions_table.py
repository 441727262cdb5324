"""What captions of units score: rows of the eval, and the page made of them."""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
from pydantic import Field

from dragoman.core.records import Measurement, Record
from dragoman.evals.rows import EvalRow
from dragoman.tools.statistics import bootstrap, mean

Variant: TypeAlias = Literal[
    "search", "search, no PMI", "chat", "chat, no PMI", "both", "both, no PMI", "random twin"
]
METRICS = ("detection", "detection_hard", "fuzzing", "fuzzing_hard", "simulation")
IN_WORDS: Mapping[Variant, str] = {
    "search": "predicate search, no chat model",
    "search, no PMI": "the same without the PMI term",
    "random twin": "predicate search on the random-weight twin",
    "chat": "the chat model's captions alone",
    "chat, no PMI": "the same without the PMI term",
    "both": "search and chat model, the better of both",
    "both, no PMI": "the same without the PMI term",
}
PUBLISHED = (
    "Published for the latents of sparse autoencoders, captioned and judged by Llama 3.1 70B "
    "(Paulo et al. 2024, arXiv:2410.13928): fuzzing .76, detection .74, wrong captions .51."
)


class Value(Record):
    """A score of one unit's caption, and its floor: the mean over mismatched pairs."""

    value: float
    floor: float
    low: float
    """Lower limit of the score's 95% interval."""
    n: int
    n_failed: int = 0


class Row(EvalRow):
    """One unit captioned in one way."""

    made: str
    """Digest of subject, corpus and seed: rows that differ in it do not belong together."""
    code: str
    """Digest of the tools' source."""
    unit: str
    variant: Variant
    caption: str | None
    """None where no candidate was found."""
    proposer: str = ""
    scores: Mapping[str, Value] = Field(default_factory=dict)
    """By metric; empty where there is no caption, or too few held-out contexts."""
    chat: str = ""
    """The chat model, where one took part."""
    chat_replies: float | None = None
    """How many of its replies this unit's captions took, cached ones counted; one reply serves
    several units. None where none took part, or rows were made before this was counted."""

    @property
    def key(self) -> tuple[str, str, str]:
        """What makes two rows the same piece of work."""
        return (self.made, self.unit, self.variant)

    @property
    def holds(self) -> bool:
        """The caption's detection beats its floor, by the whole interval."""
        found = self.scores.get("detection")
        return found is not None and found.low > max(found.floor, 0.5)


class Column(NamedTuple):
    """Units of one variant with one score."""

    units: tuple[str, ...]
    values: tuple[float, ...]
    floors: tuple[float, ...]
    n_failed: int
    """Units without this score."""


def column(rows: Sequence[Row], variant: Variant, metric: str) -> Column:
    """All units of a variant, those without a score counted."""
    own = [row for row in rows if row.variant == variant]
    scored = [(row.unit, row.scores[metric]) for row in own if metric in row.scores]
    return Column(
        tuple(unit for unit, _ in scored),
        tuple(each.value for _, each in scored),
        tuple(each.floor for _, each in scored),
        len(own) - len(scored),
    )


def measured(found: Column, metric: str, seed: int = 0) -> Measurement | None:
    """The mean over units; None for fewer than two."""
    if len(found.values) < 2:
        return None
    return mean(
        metric,
        found.values,
        unit="correlation" if metric == "simulation" else "fraction",
        baseline_samples=found.floors,
        control="shuffled captions",
        seed=seed,
        n_failed=found.n_failed,
    )


def difference(
    rows: Sequence[Row], first: Variant, second: Variant, metric: str
) -> tuple[float, float, float, int] | None:
    """Mean of `first` minus `second` over the units that have both, its interval, and n."""
    values = [dict(zip(c.units, c.values, strict=True)) for c in _pair(rows, first, second, metric)]
    shared = sorted(values[0].keys() & values[1].keys())
    if len(shared) < 2:
        return None
    gaps = np.array([values[0][unit] - values[1][unit] for unit in shared])
    low, high = bootstrap(gaps, 0)
    return float(gaps.mean()), low, high, len(shared)


def _pair(
    rows: Sequence[Row], first: Variant, second: Variant, metric: str
) -> tuple[Column, Column]:
    return column(rows, first, metric), column(rows, second, metric)


def render(rows: Sequence[Row], corpus: str, n_asked: int, costs: Sequence[str]) -> str:
    """The page."""
    n_done = len({row.unit for row in rows})
    so_far = (
        ""
        if n_done == n_asked
        else f" **So far {n_done} of them have a row**: whole layers, in random order."
    )
    present = [variant for variant in IN_WORDS if any(row.variant == variant for row in rows)]
    lines = [
        "# Captions of the default subject's neurons",
        "",
        f"{n_asked} MLP neurons of `smollm2`, drawn with a fixed seed from all 46,080; "
        f"{corpus}.{so_far} Captions are found on two fifths of the texts, chosen on a fifth and "
        "scored on the rest. Balanced accuracies of .5 are chance. The floor is the same score of "
        "mismatched pairs: this caption on other neurons of its layer, other neurons' captions on "
        "this one. Hard negatives are contexts (tokens) at which the three neurons that correlate "
        "most with this one are active and it is not. Intervals are bootstrapped over neurons, "
        "95%; a neuron without a caption, or with fewer than five active held-out contexts, has "
        "failed.",
        "",
        "| captions from | score | mean [95%] | shuffled floor | n | failed |",
        "|---|---|---|---|---:|---:|",
    ]
    for variant in present:
        for metric in METRICS:
            found = measured(column(rows, variant, metric), metric)
            if found is not None:
                lines.append(
                    f"| {IN_WORDS[variant]} | {metric.replace('_', ', ')} | {found.value:.3f} "
                    f"[{found.ci95[0]:.3f}, {found.ci95[1]:.3f}] | {found.baseline:.3f} | "
                    f"{found.n} | {found.n_failed} |"
                )
    lines += ["", PUBLISHED, "", *_differences(rows), "", *_shares(rows, present), ""]
    lines += _replies(rows)
    lines += [*_strata(rows), "", *_best(rows), "", *costs, ""]
    codes = {row.code for row in rows}
    if len(codes) > 1:
        lines += [f"Rows were made by {len(codes)} versions of the tools' source.", ""]
    return "\n".join(lines)


_COMPARED: tuple[tuple[Variant, Variant, str], ...] = (
    ("search", "search, no PMI", "the PMI term, without a chat model"),
    ("both", "both, no PMI", "the PMI term, with the chat model"),
    ("both", "search", "the chat model beside the search"),
    ("chat", "search", "the chat model in place of the search"),
    ("search", "random twin", "trained weights, over random ones"),
)


def _differences(rows: Sequence[Row]) -> list[str]:
    lines = [
        "| worth of | detection [95%] | fuzzing [95%] | neurons with both |",
        "|---|---|---|---:|",
    ]
    for first, second, name in _COMPARED:
        gaps = [difference(rows, first, second, metric) for metric in ("detection", "fuzzing")]
        if gaps[0] is not None:
            told = ["none" if gap is None else _signed(*gap[:3]) for gap in gaps]
            lines.append(f"| {name} | {' | '.join(told)} | {gaps[0][3]} |")
    return lines if len(lines) > 2 else []


def _signed(value: float, low: float, high: float) -> str:
    return f"{value:+.3f} [{low:+.3f}, {high:+.3f}]"


def _shares(rows: Sequence[Row], present: Sequence[Variant]) -> list[str]:
    lines = ["Captions that beat their floor, by their whole interval:", ""]
    for variant in present:
        own = [row for row in rows if row.variant == variant]
        count = sum(row.holds for row in own)
        lines.append(f"- {IN_WORDS[variant]}: {count} of {len(own)}")
    return lines


def _replies(rows: Sequence[Row]) -> list[str]:
    """What the chat model's captions took, by neurons and not by rows: variants share replies."""
    counted = {row.unit: row.chat_replies for row in rows if row.chat_replies is not None}
    asked = {row.unit for row in rows if row.chat}
    if not counted:
        return []
    return [
        f"Captions by the chat model took {np.mean(list(counted.values())):.2f} replies a neuron "
        f"(n = {len(counted)}; not counted for {len(asked - counted.keys())}).",
        "",
    ]


def _strata(rows: Sequence[Row]) -> list[str]:
    own = [row for row in rows if row.variant == "search" and "detection" in row.scores]
    lines = ["| layers | mean detection | mean fuzzing | n |", "|---|---|---|---:|"]
    for first in range(0, 30, 6):
        inside = [row for row in own if first <= int(row.unit.split(".")[0]) < first + 6]
        if inside:
            detection = np.mean([row.scores["detection"].value for row in inside])
            fuzzing = [row.scores["fuzzing"].value for row in inside if "fuzzing" in row.scores]
            told = f"{np.mean(fuzzing):.3f}" if fuzzing else "none"
            lines.append(f"| {first} to {first + 5} | {detection:.3f} | {told} | {len(inside)} |")
    return lines


def _best(rows: Sequence[Row]) -> list[str]:
    own = [row for row in rows if row.variant == "search" and "detection" in row.scores]
    own.sort(key=lambda row: -row.scores["detection"].value)
    lines = ["The best, the median and the worst five of the predicate search:", ""]
    middle = len(own) // 2
    chosen = dict.fromkeys([*range(5), *range(middle - 2, middle + 3), *range(-5, 0)])
    for row in (own[each] for each in chosen if -len(own) <= each < len(own)):
        said = (row.caption or "").replace("|", "\\|")
        lines.append(f"- {row.unit}, {row.scores['detection'].value:.2f}: {said}")
    return lines
