"""Preregister: write down each test before it runs, and drop what cannot be tested."""

from typing import Any

from dragoman.agent.desk import Desk, Registration
from dragoman.agent.state import AuditState
from dragoman.core.errors import ToolError
from dragoman.core.report import NegativeResult


def preregister(state: AuditState, desk: Desk) -> dict[str, Any]:
    """Fix the experiment, prediction and controls of every hypothesis of this round."""
    if state["hypotheses"]:
        desk.phase("preregister", f"predictions and controls of {len(state['hypotheses'])}")
    kept = []
    for hypothesis in desk.hypotheses(state["hypotheses"]):
        try:
            experiment = desk.bench.experiment(
                hypothesis.tool, hypothesis.arguments, desk.specification.seed
            )
        except ToolError as error:
            desk.deviate(f"test that {hypothesis.statement}", "not tested", str(error))
            desk.miss(NegativeResult(kind="failed", text=f"{hypothesis.statement}: {error}"))
            continue
        registration = Registration(hypothesis_id=hypothesis.id, experiment=experiment)
        if any(
            each.experiment == experiment and each.hypothesis_id != hypothesis.id
            for each in desk.kept("registration", Registration)
        ):
            desk.notice(f"{hypothesis.tool} runs once for several hypotheses")
        desk.keep("registration", hypothesis.id, registration)
        kept.append(hypothesis.id)
    return {"hypotheses": kept}
