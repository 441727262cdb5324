"""Run: carry out the registered experiments, each once."""

from typing import Any

from dragoman.agent.desk import Desk
from dragoman.agent.state import AuditState
from dragoman.core.report import Coverage, NegativeResult


def run(state: AuditState, desk: Desk) -> dict[str, Any]:
    """Every registered experiment has a result afterwards, good or failed."""
    registrations = desk.registrations(state["hypotheses"])
    hypotheses = {each.id: each for each in desk.hypotheses(state["hypotheses"])}
    for registration in registrations:
        experiment = registration.experiment
        statement = hypotheses[registration.hypothesis_id].statement
        desk.phase("run", f"{experiment.tool}: {statement}")
        result = desk.conduct(experiment)
        if result.status == "error":
            desk.miss(NegativeResult(kind="failed", text=f"{experiment.tool}: {result.error}"))
        desk.cover(
            registration.hypothesis_id,
            Coverage(
                subject_part=statement,
                searched=result.status == "ok",
                detail=result.summary,
            ),
        )
    return {}
