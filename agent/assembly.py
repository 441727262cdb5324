"""Assembly: the report of an audit, put together from its ledger alone."""

from datetime import UTC, datetime

from dragoman.agent.desk import Desk, Registration
from dragoman.agent.gates import judge_gates
from dragoman.agent.narrator import account, verdict_sentences
from dragoman.agent.nodes.controls import on_reference, replication
from dragoman.agent.rendering.replay import replay_command
from dragoman.core.claims import Concern
from dragoman.core.records import ChatIdentity, Experiment, Measurement, Record, ToolResult
from dragoman.core.report import (
    Cost,
    Coverage,
    Deviation,
    NegativeResult,
    Outcome,
    PhaseNote,
    Report,
)

NO_CHAT = ChatIdentity(kind="none", model="fixed protocol")


class Ending(Record):
    """When an audit ended in this way, and how long it had worked by then."""

    outcome: Outcome
    reason: str
    finished: str
    seconds: float


def utc_now() -> str:
    """ISO 8601 to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def assemble(desk: Desk, *, stopped: str = "", interrupted: bool = False) -> Report:
    """The report as the ledger has it; `stopped` says which limit ended the run."""
    claims = desk.claims()
    gates = judge_gates(desk)
    failed = [gate for gate in gates if not gate.passed]
    outcome: Outcome = "done"
    reason = ""
    if interrupted:
        outcome, reason = "interrupted", "stopped on request; it can be resumed"
    elif stopped:
        outcome, reason = "limit reached", stopped
    elif failed:
        outcome, reason = "gate failed", f"{len(failed)} of {len(gates)} gates failed"
    ending = _ending(desk, outcome, reason)
    experiments = _experiments(desk)
    compared = _on_reference(desk, experiments)
    claim_ids = {claim.id for claim in claims}
    evidence_ids = {each for claim in claims for each in claim.evidence_ids}
    reference = desk.reference
    return Report(
        id=desk.audit_id,
        title=desk.specification.questions[0],
        questions=desk.specification.questions,
        verdict=verdict_sentences(claims),
        narrative=(
            tuple(each for each in desk.narrative() if claim_ids.issuperset(each.claim_ids))
            or account(claims, {each.id: each for each in desk.hypotheses()})
        ),
        claims=tuple(claims),
        evidence=tuple(each for each in desk.evidence() if each.id in evidence_ids),
        hypotheses=tuple(desk.hypotheses()),
        concerns=tuple(
            each for each in desk.kept("concern", Concern) if each.claim_id in claim_ids
        ),
        negative_results=(*desk.kept("negative", NegativeResult), *_not_reached(desk)),
        coverage=tuple(desk.kept("coverage", Coverage)),
        controls=_controls(desk, [result for _, result in experiments], compared),
        deviations=tuple(desk.kept("deviation", Deviation)),
        gates=gates,
        cost=_cost(desk, ending),
        replay=(
            *(replay_command(each, desk.bench.subject_name) for each, _ in experiments),
            *(replay_command(each.experiment, _reference_name(desk)) for each in compared),
        ),
        timeline=tuple(desk.kept("phase", PhaseNote)),
        subject=desk.scene.subject,
        reference=None if reference is None else reference.subject.identity,
        chat=NO_CHAT if desk.chat is None else desk.chat.identity,
        outcome=outcome,
        outcome_reason=reason,
        started=desk.ledger.audit(desk.audit_id).started,
        finished=ending.finished,
        seed=desk.specification.seed,
        specification=desk.specification.model_dump(mode="json"),
    )


def _ending(desk: Desk, outcome: Outcome, reason: str) -> Ending:
    """The first ending of this kind: a repeated assembly is byte for byte the same report."""
    for known in desk.kept("ending", Ending):
        if (known.outcome, known.reason) == (outcome, reason):
            return known
    seconds = round(desk.budget.seconds, 1)
    ending = Ending(outcome=outcome, reason=reason, finished=utc_now(), seconds=seconds)
    desk.keep("ending", ending.content_id(), ending)
    return ending


def _experiments(desk: Desk) -> list[tuple[Experiment, ToolResult]]:
    """Every experiment of the audit that has a result, repetitions included, each once."""
    found: dict[str, tuple[Experiment, ToolResult]] = {}
    for registration in desk.kept("registration", Registration):
        for experiment in (registration.experiment, replication(registration.experiment)):
            result = desk.result(experiment)
            if result is not None:
                found[experiment.id] = (experiment, result)
    return list(found.values())


def _reference_name(desk: Desk) -> str:
    return "" if desk.reference is None else desk.reference.subject_name


def _on_reference(desk: Desk, experiments: list[tuple[Experiment, ToolResult]]) -> list[ToolResult]:
    """Results of the same experiments on the reference subject."""
    if desk.reference is None:
        return []
    digest = desk.reference.subject.identity.digest
    found = [desk.result(on_reference(experiment, digest)) for experiment, _ in experiments]
    return [each for each in found if each is not None and each.status == "ok"]


def _controls(
    desk: Desk, results: list[ToolResult], compared: list[ToolResult]
) -> tuple[Measurement, ...]:
    """Every further control, and what the reference gave, each once."""
    beside = [
        each.model_copy(
            update={"scope": f"{each.scope}, reference {_reference_name(desk)}".removeprefix(", ")}
        )
        for result in compared
        for each in result.measurements
    ]
    found = {each.content_id(): each for result in results for each in result.controls}
    return (*found.values(), *beside)


def _not_reached(desk: Desk) -> list[NegativeResult]:
    """Hypotheses that a limit or an interruption left untested."""
    run = {
        each.hypothesis_id
        for each in desk.kept("registration", Registration)
        if desk.result(each.experiment) is not None
    }
    failed = {each.text.partition(":")[0] for each in desk.kept("negative", NegativeResult)}
    return [
        NegativeResult(kind="not searched", text=f"planned and not tested: {each.statement}")
        for each in desk.hypotheses()
        if each.id not in run and each.statement not in failed
    ]


def _cost(desk: Desk, ending: Ending) -> Cost:
    spent = desk.ledger.spent(desk.audit_id)
    return Cost(
        chat_calls=spent.calls,
        prompt_tokens=spent.prompt_tokens,
        completion_tokens=spent.completion_tokens,
        usd=spent.usd,
        seconds=ending.seconds,
        tools=desk.ledger.seconds(desk.audit_id),
    )
