"""Controls: see that each promised control was measured, and repeat what held on another seed."""

from typing import Any

from dragoman.agent.desk import Desk
from dragoman.agent.judgement import bearing_of, measured
from dragoman.agent.state import AuditState
from dragoman.core.records import Experiment

REPLICATION_SEED = 1_000_003
"""Added to the seed of a registered experiment to draw its splits and samples anew."""


def controls(state: AuditState, desk: Desk) -> dict[str, Any]:
    """Note missing controls; replicate supported predictions unless the audit is a quick one."""
    for hypothesis, experiment, result in desk.tested(state["hypotheses"]):
        if not result.controls and len(hypothesis.controls) > 1:
            desk.deviate(
                f"controls of {hypothesis.tool}: {', '.join(hypothesis.controls)}",
                "only the baseline of each measurement was there",
                "; ".join(result.caveats) or "the tool returned no further control",
            )
        held = [
            prediction
            for prediction in hypothesis.predictions
            for measurement in [measured(prediction, result)]
            if measurement is not None and bearing_of(prediction, measurement) == "supports"
        ]
        if desk.reference is not None:
            desk.phase("controls", f"{hypothesis.tool} on the reference subject")
            digest = desk.reference.subject.identity.digest
            desk.conduct(on_reference(experiment, digest), desk.reference)
        if held and not desk.specification.quick:
            desk.phase("controls", f"{hypothesis.tool} again with fresh splits")
            desk.conduct(replication(experiment))
    return {}


def on_reference(experiment: Experiment, digest: str) -> Experiment:
    """The same experiment on the reference subject."""
    return experiment.model_copy(update={"subject_digest": digest})


def replication(experiment: Experiment) -> Experiment:
    """The same experiment with another seed: held-out in its splits, samples and draws."""
    return experiment.model_copy(update={"seed": experiment.seed + REPLICATION_SEED})
