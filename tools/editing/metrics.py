"""What an edit did: shares of won comparisons, and how fluent the text still is."""

import math
from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np

from dragoman.core.records import Measurement
from dragoman.tools.editing.similarity import words
from dragoman.tools.statistics import wilson


def grouped_shares(wins: Sequence[bool], groups: Sequence[str]) -> list[float]:
    """The share of wins in each group, in order of first appearance."""
    members: defaultdict[str, list[bool]] = defaultdict(list)
    for won, group in zip(wins, groups, strict=True):
        members[group].append(won)
    return [float(np.mean(one)) for one in members.values()]


def share_by_group(
    metric: str,
    wins: Sequence[bool],
    groups: Sequence[str],
    *,
    baseline_wins: Sequence[bool],
    baseline_groups: Sequence[str],
    control: str,
    n_failed: int = 0,
    scope: str = "",
) -> Measurement:
    """Mean over groups of the share of wins; the Wilson intervals count each group once.

    Several edits of one entity are no independent observations, so n is the number of groups.
    """
    shares = grouped_shares(wins, groups)
    baseline_shares = grouped_shares(baseline_wins, baseline_groups)
    if not shares or not baseline_shares:
        raise ValueError(f"{metric}: nothing was measured")
    return Measurement(
        metric=metric,
        value=float(np.mean(shares)),
        unit="fraction",
        baseline=float(np.mean(baseline_shares)),
        control=control,
        ci95=wilson(sum(shares), len(shares)),
        n=len(shares),
        n_failed=n_failed,
        baseline_ci95=wilson(sum(baseline_shares), len(baseline_shares)),
        scope=scope,
    )


def harmonic_mean(values: Sequence[float]) -> float:
    """0 as soon as one value is 0: no strength makes up for a failure."""
    if min(values) <= 0:
        return 0.0
    return len(values) / sum(1 / value for value in values)


def ngram_entropy(text: str) -> float:
    """Mean of 2/3 H_2 and 4/3 H_3, the entropies of its 2- and 3-grams of words, in bits.

    The fluency of Zhang et al. 2018 as Meng et al. 2022 use it: repetition lowers it. It grows with
    length, so only texts of like length compare.
    """
    found = words(text)
    weighted = [
        weight * _entropy([tuple(found[at : at + size]) for at in range(len(found) - size + 1)])
        for size, weight in ((2, 2 / 3), (3, 4 / 3))
    ]
    return sum(weighted) / len(weighted)


def _entropy(grams: Sequence[tuple[str, ...]]) -> float:
    total = len(grams)
    return sum(-count / total * math.log2(count / total) for count in Counter(grams).values())
