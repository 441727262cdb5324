"""From a comparison to measurements, each beside its control."""

from collections.abc import Mapping, Sequence

import numpy as np

from dragoman.core.records import JsonObject, Measurement
from dragoman.tools.editing.comparison import Comparison
from dragoman.tools.editing.directions import EDITED, NO_EDIT, RANDOM
from dragoman.tools.editing.metrics import share_by_group
from dragoman.tools.editing.overall import Overall
from dragoman.tools.editing.probes import NEIGHBOUR_KINDS, Kind
from dragoman.tools.editing.text_metrics import TextScores
from dragoman.tools.statistics import mean

AT_NEIGHBOUR = "the same direction added at the neighbour itself"
_SCOPES: dict[Kind, str] = {
    "mentioned": "edited entity mentioned before the question",
    "related": "edited entity's own fact stated before the question",
    "after": "edited entity named after the neighbour",
}


def measure_efficacy(
    comparison: Comparison, kind: Kind, metric: str, *, n_failed: int = 0, scope: str = ""
) -> list[Measurement]:
    """The editor against a random direction of equal norm; every other method against no edit."""
    if kind not in comparison.probes:
        return []
    groups = [probe.group for probe in comparison.probes[kind]]
    measured = []
    for method in comparison.methods:
        control = RANDOM if method == EDITED else NO_EDIT
        measured.append(
            share_by_group(
                metric,
                comparison.changed(method, kind),
                groups,
                baseline_wins=comparison.changed(control, kind),
                baseline_groups=groups,
                control=control,
                n_failed=n_failed,
                scope=scope if method == EDITED else method,
            )
        )
    return measured


def measure_specificity(comparison: Comparison) -> list[Measurement]:
    """`neighbourhood_specificity` over all shapes of prompt, then for each, then of the baselines.

    The editor's control is its own direction added at the neighbour: an edit that does nothing
    anywhere keeps every answer there too, and so is not above its control.
    """
    metric = "neighbourhood_specificity"
    kinds = [kind for kind in NEIGHBOUR_KINDS if kind in comparison.probes]
    wins, groups = comparison.kept(EDITED, kinds)
    if not wins:
        return []
    control_wins, control_groups = comparison.kept(EDITED, ["at_neighbour"])
    if not control_wins:
        return []
    measured = []
    for scope, chosen in [("", kinds), *((_SCOPES[kind], [kind]) for kind in kinds)]:
        wins, groups = comparison.kept(EDITED, chosen)
        if wins:
            measured.append(
                share_by_group(
                    metric,
                    wins,
                    groups,
                    baseline_wins=control_wins,
                    baseline_groups=control_groups,
                    control=AT_NEIGHBOUR,
                    n_failed=comparison.n_not_held() if not scope else 0,
                    scope=scope,
                )
            )
    for method in comparison.methods:
        if method in (EDITED, NO_EDIT):
            continue
        wins, groups = comparison.kept(method, kinds)
        before, _ = comparison.kept(NO_EDIT, kinds)
        measured.append(
            share_by_group(
                metric,
                wins,
                groups,
                baseline_wins=before,
                baseline_groups=groups,
                control="no edit (1 by selection: only answers that it gives can be kept)",
                scope=method,
            )
        )
    return measured


def measure_probability(comparison: Comparison, kind: Kind, seed: int) -> Measurement:
    """`new_object_probability`: of its first token after the prompt, beside no edit."""
    return mean(
        "new_object_probability",
        _probabilities(comparison, EDITED, kind),
        unit="probability",
        baseline_samples=_probabilities(comparison, NO_EDIT, kind),
        control=NO_EDIT,
        seed=seed,
    )


def measure_magnitude(comparison: Comparison, seed: int) -> list[Measurement]:
    """`magnitude`: p(new) - p(old) after the relation's prompt, of each method beside no edit."""
    kind: Kind = "rewrite"
    groups = [probe.group for probe in comparison.probes[kind]]
    by_method = {
        method: _by_group((each[kind].log_new.exp() - each[kind].log_old.exp()).tolist(), groups)
        for method, each in comparison.answers.items()
    }
    return [
        mean(
            "magnitude",
            values,
            unit="probability",
            baseline_samples=by_method[NO_EDIT],
            control=NO_EDIT,
            seed=seed,
            scope="" if method == EDITED else method,
        )
        for method, values in by_method.items()
        if method != NO_EDIT
    ]


def measure_collateral(comparison: Comparison, seed: int) -> list[Measurement]:
    """`collateral_kl`: KL(p || p') of the next token in prompts unrelated to the relation.

    The editor's stands beside a random direction of equal norm, the baselines' beside no edit.
    """
    kind: Kind = "unrelated"
    if kind not in comparison.probes:
        return []
    groups = [probe.group for probe in comparison.probes[kind]]
    by_method = {
        method: _by_group(each[kind].divergence.tolist(), groups)
        for method, each in comparison.answers.items()
    }
    return [
        mean(
            "collateral_kl",
            values,
            unit="nat",
            baseline_samples=by_method[RANDOM if method == EDITED else NO_EDIT],
            control=RANDOM if method == EDITED else NO_EDIT,
            seed=seed,
            scope="" if method == EDITED else method,
        )
        for method, values in by_method.items()
        if method != NO_EDIT
    ]


def table(
    comparison: Comparison,
    scores: TextScores | None = None,
    five: Overall | None = None,
) -> JsonObject:
    """Every method's figures in one place, for the eye and for the plot."""
    rows: JsonObject = {}
    kinds = [kind for kind in NEIGHBOUR_KINDS if kind in comparison.probes]
    for method in comparison.methods:
        answers = comparison.answers[method]
        row: JsonObject = {
            "efficacy": _average(comparison.shares(method, "rewrite")),
            "paraphrase_efficacy": _average(comparison.shares(method, "paraphrase")),
            "neighbourhood_specificity": _average(comparison.kept_shares(method, kinds)),
            "new_object_first": float(answers["rewrite"].new_is_top.float().mean()),
        }
        for kind in kinds:
            row[f"kept_{kind}"] = _average(comparison.kept_shares(method, [kind]))
        if "unrelated" in answers:
            row["collateral_kl"] = float(answers["unrelated"].divergence.mean())
        if scores is not None:
            row["essence"] = float(np.mean(scores.essence[method]))
            row["fluency"] = float(np.mean(scores.fluency[method]))
            if method in scores.consistency:
                row["consistency"] = float(np.mean(scores.consistency[method]))
        if five is not None:
            row["harmonic_mean"] = five.of(method)
        rows[method] = row
    return rows


def _average(shares: Mapping[str, float]) -> float | None:
    return float(np.mean(list(shares.values()))) if shares else None


def _probabilities(comparison: Comparison, method: str, kind: Kind) -> list[float]:
    groups = [probe.group for probe in comparison.probes[kind]]
    return _by_group(comparison.answers[method][kind].log_new.exp().tolist(), groups)


def _by_group(values: Sequence[float], groups: Sequence[str]) -> list[float]:
    """One value for each group: its probes' mean."""
    found: dict[str, list[float]] = {}
    for group, value in zip(groups, values, strict=True):
        found.setdefault(group, []).append(value)
    return [float(np.mean(some)) for some in found.values()]
