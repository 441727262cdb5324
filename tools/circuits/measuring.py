"""From trials to Measurements: each number with its control, its interval and its n."""

from collections.abc import Sequence

from dragoman.core.records import Measurement
from dragoman.tools.circuits.controls import SHUFFLED
from dragoman.tools.circuits.faithfulness import RECALLS
from dragoman.tools.circuits.pooling import by_chance, measure, pool
from dragoman.tools.circuits.trial import BESIDE
from dragoman.tools.circuits.trial_record import Outcomes, TrialRecord

WHOLE = "faithfulness_whole_object"


def measure_known(trials: Sequence[TrialRecord]) -> Measurement:
    """Of all facts, those whose object the subject names after examples without their own.

    All facts, because estimation takes known ones first: what is left is known less often.
    """
    known = [trial.known for trial in trials]
    return measure("known", known, by_chance(known), SHUFFLED)


def measure_faithfulness(
    trials: Sequence[TrialRecord],
) -> tuple[Measurement, tuple[Measurement, ...]] | None:
    """Of known test facts, those whose object the map names; and the same for each control.

    Besides, by the stricter rule, and recall@k. None where no split could be judged.
    """
    judged = [trial for trial in trials if trial.named is not None]
    named = [trial.named for trial in judged if trial.named is not None]
    if not named:
        return None
    layers = [trial.layer for trial in judged if trial.layer is not None]
    controls = control_outcomes([trial.controls for trial in judged])
    n_failed = _not_obtained(judged, named)
    headline = _headline("faithfulness", named, controls, layers, n_failed)
    further = _each("faithfulness", controls, n_failed)
    whole = [trial.whole for trial in judged if trial.whole is not None]
    further.append(
        measure(WHOLE, whole, by_chance(whole), SHUFFLED, n_failed=n_failed, scope=headline.scope)
    )
    further += _recalls(judged, headline)
    return headline, tuple(further)


def measure_causality(
    trials: Sequence[TrialRecord],
) -> tuple[Measurement, tuple[Measurement, ...]] | None:
    """Of edits on known test facts, those that succeed; and the same for each control.

    Two are shown beside the controls and are none of them: the swap of the target's whole h, which
    is what an edit at this place can do at all, and the inverse in its published form.
    """
    judged = [trial for trial in trials if trial.succeeded is not None]
    succeeded = [trial.succeeded for trial in judged if trial.succeeded is not None]
    if not succeeded:
        return None
    layers = [trial.edit_layer for trial in judged if trial.edit_layer is not None]
    controls = control_outcomes([trial.edit_controls for trial in judged])
    n_failed = _not_obtained(judged, succeeded)
    rivals = {name: each for name, each in controls.items() if name not in BESIDE}
    headline = _headline("causality", succeeded, rivals, layers, n_failed)
    return headline, tuple(_each("causality", controls, n_failed))


def control_outcomes(splits: Sequence[dict[str, Outcomes]]) -> dict[str, list[Outcomes]]:
    """The controls that every split has, each over all splits."""
    common = [name for name in splits[0] if all(name in split for split in splits)]
    return {name: [split[name] for split in splits] for name in common}


def spread(trials: Sequence[TrialRecord], metric: str) -> list[float]:
    """The value of `faithfulness` or `causality` on each split that could be judged."""
    each = [trial.named if metric == "faithfulness" else trial.succeeded for trial in trials]
    found = [outcomes for outcomes in each if outcomes is not None]
    return pool(found).by_split if found else []


def _headline(
    metric: str,
    ours: Sequence[Outcomes],
    controls: dict[str, list[Outcomes]],
    layers: Sequence[int],
    n_failed: int,
) -> Measurement:
    best = max(controls, key=lambda name: pool(controls[name]).value)
    low, high = min(layers), max(layers)
    scope = f"layer {low}" if low == high else f"layers {low} to {high}"
    if len(ours) > 1:
        scope += f", {len(ours)} splits"
    return measure(metric, ours, controls[best], best, n_failed=n_failed, scope=scope)


def _each(metric: str, controls: dict[str, list[Outcomes]], n_failed: int) -> list[Measurement]:
    """Each control as a measurement, against chance: its own answers on permuted objects."""
    chance = "its own answers, shuffled"
    return [
        measure(metric, splits, by_chance(splits), chance, n_failed=n_failed, scope=name)
        for name, splits in controls.items()
    ]


def _recalls(trials: Sequence[TrialRecord], headline: Measurement) -> list[Measurement]:
    found = []
    for k in RECALLS[1:]:
        # Only means are kept of these, so each split counts by its number of facts.
        splits = [
            Outcomes(by_fact=dict.fromkeys(trial.named.by_fact, trial.recall[k]), chance=0.0)
            for trial in trials
            if trial.named is not None
        ]
        ours = pool(splits)
        found.append(
            Measurement(
                metric=f"recall_at_{k}",
                value=ours.value,
                unit="fraction",
                baseline=headline.value,
                control="recall at 1",
                ci95=ours.interval,
                n=ours.n,
                n_failed=headline.n_failed,
                baseline_ci95=headline.ci95,
                scope=headline.scope,
            )
        )
    return found


def _not_obtained(trials: Sequence[TrialRecord], ours: Sequence[Outcomes]) -> int:
    """Test facts that gave no number in any split that tested them."""
    tested = {fact for trial in trials for fact in trial.tested}
    return len(tested - {fact for split in ours for fact in split.by_fact})
