"""What LangGraph carries from step to step: ids and counters only; bodies are in the ledger."""

from typing import TypedDict


class AuditState(TypedDict):
    """Small and JSON-primitive, so that a checkpoint can never hold more than the ledger does."""

    question: int
    """Index of the question at work."""
    round: int
    """How often this question has been planned for."""
    hypotheses: list[str]
    """Ids of the hypotheses of this round."""
    stopped: str
    """Why a limit ended the run; empty while none has."""


def first_state() -> AuditState:
    """Before anything was done."""
    return AuditState(question=0, round=0, hypotheses=[], stopped="")
