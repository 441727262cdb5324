"""From a study to Measurements: each number with its control, its interval and its n."""

from collections.abc import Sequence

from dragoman.core.records import Measurement
from dragoman.tools.circuits.controls import SHUFFLED, Control, strongest
from dragoman.tools.circuits.faithfulness import shuffled_hits
from dragoman.tools.circuits.study import Causality, Facts, Faithfulness
from dragoman.tools.relations import Sample
from dragoman.tools.statistics import proportion

SHUFFLED_TARGETS = "shuffled targets"
RANDOM = "random direction of equal norm"
SWAPPED = "whole h of the target"


def measure_known(facts: Facts) -> Measurement:
    """Of all facts, those whose object the subject names after examples without their own.

    All facts, because estimation takes known ones first: what is left is known less often.
    """
    texts = [*facts.estimation_said, *facts.said.texts]
    objects = [each.object for each in (*facts.estimation, *facts.samples)]
    return proportion(
        "known",
        sum(facts.estimation_known) + sum(facts.known),
        len(objects),
        baseline_successes=shuffled_hits(texts, objects),
        baseline_n=len(objects),
        control=SHUFFLED,
    )


def measure_faithfulness(
    facts: Facts, judged: Faithfulness
) -> tuple[Measurement, tuple[Measurement, ...]]:
    """Of known test facts, those whose object the map names; and the same for each control."""
    tested = facts.known_among(facts.test)
    n_failed = len(facts.test) - len(tested)
    best = strongest(judged.controls)
    headline = proportion(
        "faithfulness",
        sum(judged.hits),
        len(tested),
        baseline_successes=best.successes,
        baseline_n=len(tested),
        control=best.name,
        n_failed=n_failed,
        scope=f"layer {judged.chosen.layer}",
    )
    samples = facts.of(tested)
    return headline, _each("faithfulness", judged.controls, samples, n_failed)


def measure_causality(
    facts: Facts, judged: Causality
) -> tuple[Measurement, tuple[Measurement, ...]]:
    """Of edits on known test facts, those that succeed; and the same for each control.

    Beside the controls stands the swap of the target's whole h, which no map takes part in: what
    an edit at this place can do at all.
    """
    targets = facts.of(judged.pairs.targets)
    n_failed = len(facts.test) - len(targets)
    shuffled = shuffled_hits(judged.edited.decoded.texts, [each.object for each in targets])
    controls = [
        Control(RANDOM, sum(judged.random.succeeded), judged.random.decoded.texts),
        Control(SHUFFLED_TARGETS, shuffled, []),
    ]
    best = strongest(controls)
    headline = proportion(
        "causality",
        sum(judged.edited.succeeded),
        len(targets),
        baseline_successes=best.successes,
        baseline_n=len(targets),
        control=best.name,
        n_failed=n_failed,
        scope=f"layer {judged.chosen.layer}",
    )
    swapped = Control(SWAPPED, sum(judged.swapped.succeeded), judged.swapped.decoded.texts)
    return headline, _each("causality", [*controls, swapped], targets, n_failed)


def _each(
    metric: str, controls: Sequence[Control], samples: Sequence[Sample], n_failed: int
) -> tuple[Measurement, ...]:
    """Each control as a measurement, against chance: its own answers on permuted objects."""
    objects = [sample.object for sample in samples]
    return tuple(
        proportion(
            metric,
            control.successes,
            len(samples),
            baseline_successes=(
                shuffled_hits(control.texts, objects) if control.texts else control.successes
            ),
            baseline_n=len(samples),
            control="its own answers, shuffled",
            n_failed=n_failed,
            scope=control.name,
        )
        for control in controls
    )
