"""The audit as a graph: it owns the order, the chat model fills the steps.

    plan ► preregister ► run ► controls ► critique ► verdict ─┬─► plan   (another round or question)
                                                              └─► write ► check

A limit that is reached in any step leads straight to `write`, which then needs no chat model: what
was found so far becomes a partial report.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Any, TypeAlias

from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph import END, START, StateGraph

from dragoman.agent.desk import Desk
from dragoman.agent.nodes.check import check
from dragoman.agent.nodes.controls import controls
from dragoman.agent.nodes.critique import critique
from dragoman.agent.nodes.plan import plan
from dragoman.agent.nodes.preregister import preregister
from dragoman.agent.nodes.run import run
from dragoman.agent.nodes.verdict import verdict
from dragoman.agent.nodes.write import write
from dragoman.agent.state import AuditState
from dragoman.core.errors import LimitReached
from dragoman.core.protocols import stop_if

Node: TypeAlias = Callable[[AuditState, Desk], dict[str, Any]]

STEPS: dict[str, Node] = {
    "plan": plan,
    "preregister": preregister,
    "run": run,
    "controls": controls,
    "critique": critique,
    "verdict": verdict,
    "write": write,
    "check": check,
}
_CYCLE = ("plan", "preregister", "run", "controls", "critique", "verdict")


def build_graph(desk: Desk, checkpointer: BaseCheckpointSaver[str]) -> Any:
    """The compiled graph of one audit."""
    graph = StateGraph(AuditState)
    for name, step in STEPS.items():
        graph.add_node(name, _bounded(step, desk))
    graph.add_edge(START, "plan")
    for name, following in pairwise(_CYCLE):
        graph.add_conditional_edges(name, _unless_stopped(following), [following, "write"])
    graph.add_conditional_edges("verdict", _next_round(desk), ["plan", "write"])
    graph.add_edge("write", "check")
    graph.add_edge("check", END)
    return graph.compile(checkpointer=checkpointer)


def _bounded(step: Node, desk: Desk) -> Any:
    """A step that a limit ends cleanly and that does not begin once the person has said stop."""

    def bounded(state: AuditState) -> dict[str, Any]:
        stop_if(desk.cancelled)
        try:
            return step(state, desk)
        except LimitReached as limit:
            desk.notice(f"limit reached: {limit}")
            return {"stopped": str(limit)}

    return bounded


def _unless_stopped(following: str) -> Callable[[AuditState], str]:
    return lambda state: "write" if state["stopped"] else following


def _next_round(desk: Desk) -> Callable[[AuditState], str]:
    def following(state: AuditState) -> str:
        done = state["question"] >= len(desk.specification.questions)
        return "write" if done or state["stopped"] else "plan"

    return following
