"""`run_audit`: from a specification to a checked report, resumable at any point."""

import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.checkpoint.sqlite import SqliteSaver

from dragoman.agent.assembly import assemble, utc_now
from dragoman.agent.budget import FREE, Budget, price_of
from dragoman.agent.desk import Desk
from dragoman.agent.graph import build_graph
from dragoman.agent.recorded_chat import RecordedChat
from dragoman.agent.reporting import ReportShelf
from dragoman.agent.slots import GROUPS, Scene
from dragoman.agent.specification import Budgets, Specification, make_specification
from dragoman.agent.state import first_state
from dragoman.agent.workbench import Workbench
from dragoman.core.errors import Interrupted, UserError
from dragoman.core.events import AuditFinished, AuditStarted, EventSink
from dragoman.core.protocols import Cancelled
from dragoman.core.report import Report

QUICK = Budgets(steps=12, tokens=100_000, minutes=20)
"""Twice what the default audit takes on two cores: a slow machine gets its whole report."""
FULL = Budgets(steps=100, tokens=1_000_000, minutes=120)


def run_audit(
    specification: Specification,
    bench: Workbench,
    *,
    on_event: EventSink,
    cancelled: Cancelled,
    resume: str | None = None,
) -> Report:
    """Run an audit, or go on with one, and put its report on the shelf.

    An interrupted audit gives a partial report too; the ledger knows where to go on. `resume`
    takes the stored questions and settings; of `specification` only the budgets are new.

    Raises:
        UserError: no such audit, another process is at work on it, or it was of another subject.
        ChatError: the chat endpoint could not be used.
    """
    ledger = bench.ledger
    audit_id = resume or new_audit_id()
    if resume is not None:
        stored = make_specification(ledger.audit(resume).specification)
        specification = stored.model_copy(update={"budgets": specification.budgets})
    specification = specification.model_copy(update={"budgets": _limits(specification)})
    chat_name = "none" if bench.chat is None else bench.chat.identity.model
    with ledger.own(audit_id):
        if resume is None:
            plain = specification.model_dump(mode="json")
            ledger.start_audit(audit_id, plain, utc_now())
        on_event(
            AuditStarted(
                audit_id=audit_id,
                subject=bench.subject_name,
                chat=chat_name,
                resumed=resume is not None,
            )
        )
        desk = _desk(audit_id, specification, bench, on_event, cancelled)
        report = _carried_through(desk, resumed=resume is not None)
        ledger.finish_audit(audit_id, report.outcome, report.outcome_reason, report.finished)
    folder = bench.settings.reports_folder / audit_id
    on_event(
        AuditFinished(
            audit_id=audit_id,
            outcome=report.outcome,
            reason=report.outcome_reason,
            report_path=str(folder / "report.html"),
        )
    )
    return report


def new_audit_id() -> str:
    """Sortable by time, unlikely to meet another: `20261123-064512-3fa2`."""
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


def _limits(specification: Specification) -> Budgets:
    default = QUICK if specification.quick else FULL
    given = specification.budgets.model_dump(exclude_none=True)
    return default.model_copy(update=given)


def _desk(
    audit_id: str,
    specification: Specification,
    bench: Workbench,
    on_event: EventSink,
    cancelled: Cancelled,
) -> Desk:
    from dragoman.tools.relations import list_relations

    ledger, settings = bench.ledger, bench.settings
    for name in specification.tools:
        bench.tool(name)  # an unknown one ends the audit before anything is run
    price = FREE if bench.chat is None else price_of(bench.chat.identity, settings)
    budget = Budget(specification.budgets, ledger, audit_id, price=price)
    subject = bench.subject.identity
    _check_subject(ledger.entries(audit_id, "subject"), subject.digest)
    ledger.put(audit_id, "subject", "identity", subject)
    reference = None
    if specification.reference is not None:
        reference = Workbench(settings, specification.reference, ledger, bench.chat, None)
    return Desk(
        audit_id=audit_id,
        specification=specification,
        scene=Scene(
            subject=subject,
            relations=specification.relations or list_relations(),
            seed=specification.seed,
            effort="quick" if specification.quick else "full",
            groups=GROUPS,
            corpus=specification.corpus,
            kind=bench.subject.kind,
            units=bench.subject.units,
        ),
        bench=bench,
        reference=reference,
        ledger=ledger,
        budget=budget,
        chat=(
            None
            if bench.chat is None
            else RecordedChat(bench.chat, ledger, audit_id, budget, on_event)
        ),
        on_event=on_event,
        cancelled=cancelled,
    )


def _check_subject(known: list[dict[str, Any]], digest: str) -> None:
    if known and known[0]["digest"] != digest:
        raise UserError(
            "this audit was begun on other weights under the same name; start a new audit"
        )


def _carried_through(desk: Desk, *, resumed: bool) -> Report:
    shelf = ReportShelf(desk.bench.settings.reports_folder)
    try:
        with _checkpoints(desk, resumed=resumed) as saver:
            graph = build_graph(desk, saver)
            config = {"configurable": {"thread_id": desk.audit_id}, "recursion_limit": 2000}
            waiting = bool(graph.get_state(config).next)
            graph.invoke(None if waiting else first_state(), config, durability="sync")
    except (Interrupted, KeyboardInterrupt):
        report = assemble(desk, interrupted=True)
        shelf.save(report, desk.bench.settings.home)
        return report
    finally:
        desk.budget.note_time()
    return shelf.load(desk.audit_id)


@contextmanager
def _checkpoints(desk: Desk, *, resumed: bool) -> Iterator[SqliteSaver]:
    """Where the graph stands. Only a convenience: the ledger replays whatever it has forgotten.

    So a damaged file, or that of a run that a limit had ended, is put aside and the graph begins
    anew; no experiment and no paid call is repeated by that.
    """
    folder = desk.bench.settings.home / "checkpoints"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{desk.audit_id}.sqlite3"
    if resumed and not _usable(path):
        forget_checkpoints(path)
    with closing(sqlite3.connect(path, check_same_thread=False)) as connection:
        yield _saver(connection)
    forget_checkpoints(path)


def _saver(connection: sqlite3.Connection) -> SqliteSaver:
    # The state is JSON-primitive: nothing has to be imported to read it.
    return SqliteSaver(connection, serde=JsonPlusSerializer(allowed_msgpack_modules=None))


def _usable(path: Path) -> bool:
    if not path.is_file() or path.stat().st_size == 0:
        return False
    with suppress(sqlite3.DatabaseError), closing(sqlite3.connect(path)) as connection:
        verdict = connection.execute("PRAGMA integrity_check").fetchone()
        return bool(verdict == ("ok",))
    return False


def forget_checkpoints(path: Path) -> None:
    """Remove a checkpoint file with its write-ahead log."""
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
