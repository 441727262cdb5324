"""From a comparison to measurements, each beside its control."""

from collections.abc import Sequence

import numpy as np

from dragoman.core.records import JsonObject, Measurement
from dragoman.tools.editing.comparison import Comparison
from dragoman.tools.editing.directions import EDITED, NO_EDIT, RANDOM
from dragoman.tools.editing.metrics import grouped_shares, harmonic_mean, share_by_group
from dragoman.tools.editing.probes import NEIGHBOUR_KINDS, Kind
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


def table(comparison: Comparison) -> JsonObject:
    """Every method's figures in one place, for the eye and for the plot; fractions."""
    rows: JsonObject = {}
    kinds = [kind for kind in NEIGHBOUR_KINDS if kind in comparison.probes]
    for method in comparison.methods:
        efficacy = _share(comparison, method, "rewrite")
        row: JsonObject = {
            "efficacy": efficacy,
            "paraphrase_efficacy": _share(comparison, method, "paraphrase"),
            "new_object_first": float(
                comparison.answers[method]["rewrite"].new_is_top.float().mean()
            ),
        }
        wins, groups = comparison.kept(method, kinds)
        if wins and efficacy is not None:
            specificity = float(np.mean(grouped_shares(wins, groups)))
            row["neighbourhood_specificity"] = specificity
            row["harmonic_mean"] = harmonic_mean([efficacy, specificity])
            for kind in kinds:
                wins, groups = comparison.kept(method, [kind])
                if wins:
                    row[f"kept_{kind}"] = float(np.mean(grouped_shares(wins, groups)))
        rows[method] = row
    return rows


def _share(comparison: Comparison, method: str, kind: Kind) -> float | None:
    if kind not in comparison.probes:
        return None
    groups = [probe.group for probe in comparison.probes[kind]]
    return float(np.mean(grouped_shares(comparison.changed(method, kind), groups)))


def _probabilities(comparison: Comparison, method: str, kind: Kind) -> Sequence[float]:
    """One value for each group: its probes' mean."""
    values: dict[str, list[float]] = {}
    found = comparison.answers[method][kind].log_new.exp().tolist()
    for probe, probability in zip(comparison.probes[kind], found, strict=True):
        values.setdefault(probe.group, []).append(probability)
    return [float(np.mean(some)) for some in values.values()]
