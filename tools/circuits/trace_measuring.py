"""From traces and paths to Measurements: chosen on some facts, reported on others."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from dragoman.core.records import Measurement
from dragoman.tools.circuits.contributions import TOLERANCE, Contributions
from dragoman.tools.circuits.duels import Arena
from dragoman.tools.circuits.paths import PathEffects
from dragoman.tools.circuits.tracing import Trace, by_role, random_control
from dragoman.tools.statistics import mean

RANDOM_CHANGE = "random change of equal length"
NOTHING_PREDICTED = "predicting no effect anywhere"
_ROLES = ("last entity token", "last token")
_REPORTED_PATHS = 3


class Choice(NamedTuple):
    """The layer at which the choosing facts get most of their answer back."""

    role: str
    layer: int
    restored: float


def choose_peaks(arena: Arena, found: Trace, duels: Sequence[int]) -> list[Choice]:
    """For the entity's last token and the prompt's, the best layer; of equals the lowest.

    A residual stream carries the whole answer at the last token of the last layer, whatever the
    relation: there the layer that is chosen is the first to restore nearly (0.95) all of the most.
    """
    usable = [duel for duel in duels if found.usable[duel]]
    if not usable:
        return []
    peaks = []
    for role, values in by_role(arena, found.restored, usable).items():
        if role not in _ROLES:
            continue
        by_layer = values.nanmean(0)
        best = float(by_layer.max())
        near = by_layer >= 0.95 * best if role == "last token" else by_layer >= best
        layer = int(near.float().argmax())
        peaks.append(Choice(role, layer, float(by_layer[layer])))
    return peaks


def measure_peaks(
    arena: Arena,
    found: Trace,
    peaks: Sequence[Choice],
    duels: Sequence[int],
    n_failed: int,
    seed: int,
) -> list[Measurement]:
    """`effect_restored` at each peak, on facts that had no part in choosing it."""
    usable = [duel for duel in duels if found.usable[duel]]
    if len(usable) < 2:
        return []
    restored = by_role(arena, found.restored, usable)
    noise = "" if found.corruption == "counterfactual" else " (noise)"
    return [
        mean(
            "effect_restored",
            restored[peak.role][:, peak.layer].tolist(),
            unit="ratio",
            baseline_samples=_control(arena, found, peak, usable, seed),
            control=RANDOM_CHANGE,
            seed=seed,
            n_failed=n_failed + len(duels) - len(usable),
            scope=f"{found.kind} {peak.layer}, {peak.role}{noise}",
        )
        for peak in peaks
        if peak.role in restored
    ]


def _control(
    arena: Arena, found: Trace, peak: Choice, duels: Sequence[int], seed: int
) -> list[float]:
    ends = arena.entity_end if peak.role == "last entity token" else arena.last
    return random_control(arena, found, peak.layer, [(duel, ends[duel]) for duel in duels], seed)


def measure_contributions(
    found: Contributions, duels: Sequence[int], seed: int
) -> list[Measurement]:
    """How well gradients foretold the interventions on blocks; one value for each fact."""
    return _agreement(
        found.measured[list(duels)], found.predicted[list(duels)], "attention and MLP blocks", seed
    )


def _agreement(
    measured: torch.Tensor, predicted: torch.Tensor, scope: str, seed: int
) -> list[Measurement]:
    within = ((measured - predicted).abs() <= TOLERANCE).float().mean(1)
    small = (measured.abs() <= TOLERANCE).float().mean(1)
    agreement = [
        mean(
            "prediction_within_tolerance",
            within.tolist(),
            unit="fraction",
            baseline_samples=small.tolist(),
            control=NOTHING_PREDICTED,
            seed=seed,
            scope=scope,
        )
    ]
    correlations, shuffled = [], []
    generator = np.random.default_rng(seed)
    for real, said in zip(measured.numpy(), predicted.numpy(), strict=True):
        if real.std() > 1e-9 and said.std() > 1e-9:
            correlations.append(float(np.corrcoef(real, said)[0, 1]))
            shuffled.append(float(np.corrcoef(real, generator.permutation(said))[0, 1]))
    if correlations:
        agreement.append(
            mean(
                "prediction_correlation",
                correlations,
                unit="correlation",
                baseline_samples=shuffled,
                control="predictions of other blocks",
                seed=seed,
                n_failed=len(measured) - len(correlations),
                scope=scope,
            )
        )
    return agreement


def measure_paths(
    effects: PathEffects, choosing: Sequence[int], duels: Sequence[int], seed: int
) -> list[Measurement]:
    """`path_effect` of the paths that were strongest on the choosing facts, then the agreement."""
    strength = effects.measured[list(choosing)].mean(0)
    order = strength.argsort(descending=True).tolist()[:_REPORTED_PATHS]
    rows = list(duels)
    measured = [
        mean(
            "path_effect",
            effects.measured[rows, place].tolist(),
            unit="ratio",
            baseline_samples=effects.control[rows, place].tolist(),
            control=RANDOM_CHANGE,
            seed=seed,
            scope=effects.paths[place].name,
        )
        for place in order
    ]
    return measured + _agreement(
        effects.measured[rows], effects.predicted[rows], "paths between blocks", seed
    )
