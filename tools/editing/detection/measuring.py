"""phi, F1 and AUROC of every method over all tested prompts, with intervals over entities."""

from collections.abc import Mapping, Sequence

import numpy as np

from dragoman.core.records import Measurement, Unit
from dragoman.tools.editing.detection.classifying import auroc, many_f1, many_phi
from dragoman.tools.editing.detection.decoder import Flags
from dragoman.tools.editing.detection.methods import (
    CONFIDENCE,
    CONTROL_TASK,
    PROBE,
    Told,
)
from dragoman.tools.statistics import Floats, Interval

_RESAMPLES = 2000
_AUROC_RESAMPLES = 400


def resamples(groups: Sequence[str], seed: int, count: int) -> list[list[int]]:
    """Rows of `count` bootstrap samples that draw whole groups."""
    names = list(dict.fromkeys(groups))
    members = [[at for at, one in enumerate(groups) if one == name] for name in names]
    generator = np.random.default_rng(seed)
    drawn = generator.integers(0, len(names), (count, len(names)))
    return [[at for index in draw for at in members[index]] for draw in drawn]


def measure(
    told: Mapping[str, Told],
    wrong: Flags,
    groups: Sequence[str],
    control: Floats,
    seed: int,
    *,
    n_failed: int = 0,
) -> tuple[list[Measurement], list[Measurement]]:
    """The probe's figures against the subject's confidence; then every other method's.

    `phi_above_confidence` and `phi_above_...` are differences on the same resampled entities, so
    their intervals say whether the probe is better, not only whether it is good.

    Args:
        told: by method, over all tested prompts.
        wrong: where the subject errs.
        groups: prompts of one entity.
        control: phi of the control task, one value for each deal.
        seed: of the bootstrap.
        n_failed: facts that could not be scored.
    """
    drawn = resamples(groups, seed, _RESAMPLES)
    n = len(set(groups))
    phis = {name: _phis(one, wrong, drawn) for name, one in told.items()}
    value = {
        name: float(many_phi(one.foreseen[None], wrong[None])[0]) for name, one in told.items()
    }
    chance = float(control.mean())
    spread = (float(np.quantile(control, 0.025)), float(np.quantile(control, 0.975)))

    def of_phi(name: str, against: str) -> Measurement:
        known = against in told
        return Measurement(
            metric="phi",
            value=value[name],
            unit="correlation",
            baseline=value[against] if known else chance,
            control=against,
            ci95=_interval(phis[name], value[name]),
            n=n,
            n_failed=n_failed,
            baseline_ci95=_interval(phis[against], value[against]) if known else spread,
            scope="" if name == PROBE else name,
        )

    def lead(against: str) -> Measurement:
        ahead = value[PROBE] - value[against]
        return Measurement(
            metric="phi_above_confidence" if against == CONFIDENCE else "phi_above",
            value=ahead,
            unit="correlation",
            baseline=0.0,
            control="no difference",
            ci95=_interval(phis[PROBE] - phis[against], ahead),
            n=n,
            n_failed=n_failed,
            scope="" if against == CONFIDENCE else against,
        )

    def of_counts(metric: str, name: str, unit: Unit = "fraction") -> Measurement:
        figure, few = (_f1s, drawn) if metric == "f1" else (_aurocs, drawn[:_AUROC_RESAMPLES])
        whole = [list(range(len(wrong)))]
        here, there = (float(figure(told[one], wrong, whole)[0]) for one in (name, CONFIDENCE))
        return Measurement(
            metric=metric,
            value=here,
            unit=unit,
            baseline=there,
            control=CONFIDENCE,
            ci95=_interval(figure(told[name], wrong, few), here),
            n=n,
            n_failed=n_failed,
            baseline_ci95=_interval(figure(told[CONFIDENCE], wrong, few), there),
            scope="" if name == PROBE else name,
        )

    others = [name for name in told if name != PROBE]
    measured = [
        of_phi(PROBE, CONFIDENCE),
        lead(CONFIDENCE),
        of_counts("f1", PROBE),
        of_counts("auroc", PROBE),
    ]
    controls = [of_phi(PROBE, CONTROL_TASK)]
    for name in others:
        controls += [of_phi(name, CONTROL_TASK), of_counts("auroc", name)]
        if name != CONFIDENCE:
            controls.append(lead(name))
    return measured, controls


def _phis(one: Told, wrong: Flags, drawn: Sequence[Sequence[int]]) -> Floats:
    rows = np.asarray(drawn)
    return many_phi(one.foreseen[rows], wrong[rows])


def _f1s(one: Told, wrong: Flags, drawn: Sequence[Sequence[int]]) -> Floats:
    rows = np.asarray(drawn)
    return many_f1(one.foreseen[rows], wrong[rows])


def _aurocs(one: Told, wrong: Flags, drawn: Sequence[Sequence[int]]) -> Floats:
    return np.array([auroc(one.risk[list(rows)], wrong[list(rows)]) for rows in drawn])


def _interval(samples: Floats, value: float) -> Interval:
    low, high = (float(edge) for edge in np.quantile(samples, [0.025, 0.975]))
    return Interval(min(low, value), max(high, value))
