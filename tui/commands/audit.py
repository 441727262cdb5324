"""`dragoman audit`: questions in, a checked report out, unattended."""

import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from dragoman.agent.workbench import ChatMode
from dragoman.core.claims import ClaimStatus
from dragoman.core.errors import ChatError, ExitCode, Interrupted, LimitReached, UserError
from dragoman.core.files import write_atomic
from dragoman.core.records import JsonObject
from dragoman.tui.commands.interrupt import stoppable
from dragoman.tui.commands.output import (
    emit,
    emit_json,
    emit_text,
    examples,
    results_only,
    say,
)

if TYPE_CHECKING:
    from dragoman.agent.specification import Specification
    from dragoman.core.report import Report
    from dragoman.core.settings import Settings

EXAMPLES = examples(
    "dragoman audit --quick",
    'dragoman audit --question "Does it know the past tense of verbs?" --chat none',
    "dragoman audit spec.yaml --max-minutes 20 --out reports/first",
    "dragoman audit --resume ID",
)

CHAT_HELP = "The chat model that plans; auto: an endpoint if configured, else local, else none."

EXIT_CODES = {
    "done": ExitCode.DONE,
    "gate failed": ExitCode.GATE_FAILED,
    "limit reached": ExitCode.LIMIT_REACHED,
    "interrupted": ExitCode.INTERRUPTED,
}


def audit(
    spec: Annotated[
        Path | None,
        typer.Argument(metavar="SPEC.yaml", help="What to ask; see docs/command_line.md."),
    ] = None,
    question: Annotated[
        list[str] | None, typer.Option(help="A question in plain words; may be repeated.")
    ] = None,
    subject: Annotated[
        str | None, typer.Option(help="The network to audit: a name, a folder or a hub id.")
    ] = None,
    reference: Annotated[str | None, typer.Option(help="A second network to compare with.")] = None,
    chat: Annotated[ChatMode, typer.Option(help=CHAT_HELP)] = "auto",
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Also write the report's files into this folder."),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Smaller samples, in minutes.")] = False,
    max_minutes: Annotated[float | None, typer.Option(help="Stop after this time.")] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Stop after these chat tokens.")] = None,
    max_cost: Annotated[float | None, typer.Option(help="Stop before this cost in USD.")] = None,
    resume: Annotated[
        str | None, typer.Option(metavar="ID", help="Go on with an unfinished audit.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of everything random.")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object about the report.")
    ] = False,
) -> int:
    """Run an audit and leave a report.

    Plans and runs experiments on a network until the questions are answered or a budget is
    used up. Works unattended: it never asks back. Without a specification and a question it
    asks one question for each method.
    """
    from dragoman.core.settings import load_settings

    settings = load_settings()
    budgets: JsonObject = {"minutes": max_minutes, "tokens": max_tokens, "usd": max_cost}
    chosen: JsonObject = {
        "questions": list(question) if question else None,
        "subject": subject,
        "reference": reference,
        "seed": seed,
        "quick": quick or None,
    }
    _check_out(out)
    specification = _specification(settings, spec, resume, chosen, budgets)
    with results_only():
        report = _run(settings, specification, chat, resume)
        files = _files(settings, report, out)
    code = EXIT_CODES[report.outcome]
    if as_json:
        emit_json(_summary(report, code, files))
    else:
        _show(report, files)
    if code is ExitCode.INTERRUPTED:
        say(_how_to_resume(report.id))
    return code


def _specification(
    settings: "Settings",
    spec: Path | None,
    resume: str | None,
    chosen: JsonObject,
    budgets: JsonObject,
) -> "Specification":
    """The file's or the stored specification with the options of the command line over it."""
    from pydantic import ValidationError

    from dragoman.agent.ledger import Ledger
    from dragoman.agent.specification import (
        default_specification,
        describe,
        load_specification,
        make_specification,
    )

    given: JsonObject = {name: value for name, value in chosen.items() if value is not None}
    limits: JsonObject = {name: value for name, value in budgets.items() if value is not None}
    try:
        if resume is not None:
            if spec is not None or given:
                raise UserError(
                    "--resume goes on with the specification of that audit; beside it only "
                    "--max-minutes, --max-tokens, --max-cost, --chat, --out and --json are allowed"
                )
            with Ledger(settings.ledger_file) as ledger:
                base = make_specification(ledger.audit(resume).specification)
        elif spec is not None:
            load_specification(spec)  # a mistake in the file is told before anything heavy loads
            with results_only():
                from dragoman.tools.catalogue import TOOLS
                from dragoman.tools.relations import list_relations
            base = load_specification(
                spec, known_tools=set(TOOLS), known_relations=set(list_relations())
            )
        elif "questions" in given:
            base = make_specification(given)
        else:
            base = default_specification()
        values: JsonObject = base.model_dump(mode="json")
        values |= given | {"budgets": base.budgets.model_dump(mode="json") | limits}
        return make_specification(values)
    except ValidationError as error:
        raise UserError(describe(error.errors()[0])) from None


def _run(
    settings: "Settings", specification: "Specification", chat: ChatMode, resume: str | None
) -> "Report":
    from dragoman.tui.commands.live import run_display

    with run_display() as display:

        def stopping() -> None:
            display.say("stopping at the next step; Ctrl-C again ends at once", "yellow")

        def leaving() -> None:
            display.restore()
            if display.audit_id is not None:
                say(_how_to_resume(display.audit_id))

        with stoppable(stopping, leaving) as cancelled:
            from dragoman.agent.audit import FULL, QUICK, run_audit
            from dragoman.agent.workbench import open_workbench

            default = QUICK if specification.quick else FULL
            display.budget_minutes = specification.budgets.minutes or default.minutes
            try:
                with open_workbench(
                    settings, subject=specification.subject, chat=chat, on_event=display.on_event
                ) as bench:
                    # A subject that cannot be loaded ends the run before anything is recorded.
                    identity = bench.subject.identity
                    display.say(f"subject {identity.name} is loaded: {identity.digest[:12]}")
                    return run_audit(
                        specification,
                        bench,
                        on_event=display.on_event,
                        cancelled=cancelled,
                        resume=resume,
                    )
            except (ChatError, LimitReached, Interrupted):
                if display.audit_id is not None:
                    say(_how_to_resume(display.audit_id))
                raise


def _how_to_resume(audit_id: str) -> str:
    return f"go on with: dragoman audit --resume {audit_id}"


def _check_out(folder: Path | None) -> None:
    """Find out before the run, not after it, that the report cannot be written there."""
    if folder is None:
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(f"--out {folder}: {error.strerror}; name a folder to write to") from None


def _files(settings: "Settings", report: "Report", out: Path | None) -> dict[str, str]:
    """Where the report's renderings are, by format; copied to `out` where that is given."""
    from dragoman.agent.reporting import Format, ReportShelf

    shelf = ReportShelf(settings.reports_folder)
    formats: tuple[Format, ...] = ("html", "md", "json")
    folder = settings.reports_folder / report.id
    if out is not None:
        for kind in formats:
            write_atomic(out / f"report.{kind}", shelf.export(report.id, kind))
        folder = out
    return {kind: str(folder / f"report.{kind}") for kind in formats}


def _summary(report: "Report", code: ExitCode, files: dict[str, str]) -> JsonObject:
    from dragoman.agent.rendering.prose import claim_text

    return {
        "id": report.id,
        "outcome": report.outcome,
        "reason": report.outcome_reason,
        "exit_code": int(code),
        "report": {**files},
        "claims": [
            {**claim.model_dump(mode="json"), "rendered": claim_text(claim)}
            for claim in report.claims
        ],
        "gates": [gate.model_dump(mode="json") for gate in report.gates],
    }


def _show(report: "Report", files: dict[str, str]) -> None:
    reached = Counter(claim.status for claim in report.claims)
    counts = ", ".join(f"{reached[each]} {each}" for each in get_args(ClaimStatus) if reached[each])
    emit(f"{len(report.claims)} claims: {counts or 'none'}")
    for gate in report.gates:
        verdict = "passed" if gate.passed else "FAILED"
        emit_text(f"gate {verdict}: {gate.description} (observed {gate.observed})")
    if report.outcome != "done":
        emit_text(f"{report.outcome}: {report.outcome_reason}")
    emit(f"report: {files['html']}")
    emit(f"        {files['md']}")
    emit(f"        {files['json']}")
