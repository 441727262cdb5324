"""`dragoman report`: the finished audits."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from dragoman.tui.commands.output import (
    emit,
    emit_json,
    emit_table,
    emit_text,
    examples,
    help_without_command,
    say,
)

app = typer.Typer(
    name="report",
    help="List, show and export reports.",
    epilog=examples("dragoman report list", "dragoman report show ID"),
    invoke_without_command=True,
    callback=help_without_command,
    rich_markup_mode=None,
)
_Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
_Id = Annotated[
    str, typer.Argument(metavar="ID", help="The report's id; its beginning is enough if unique.")
]


class Format(StrEnum):
    """A rendering of a report."""

    md = "md"
    html = "html"
    json = "json"


@app.command("list", epilog=examples("dragoman report list --json"))
def list_reports(as_json: _Json = False) -> None:
    """List the reports, latest first."""
    from dragoman.agent.reporting import ReportShelf
    from dragoman.core.settings import load_settings

    shelf = ReportShelf(load_settings().reports_folder)
    rows = shelf.rows()
    for damaged in shelf.damaged():
        say(f"left out: {damaged.reason}")
    if as_json:
        emit_json([row.model_dump(mode="json") for row in rows])
        return
    emit_table(
        ("ID", "FINISHED", "SUBJECT", "OUTCOME", "CLAIMS", "QUESTION"),
        [
            (row.id, row.finished, row.subject, row.outcome, str(row.n_claims), row.question)
            for row in rows
        ],
        empty="there are no reports yet; `dragoman audit --quick` makes one",
    )


@app.command(epilog=examples("dragoman report show ID", "dragoman report show ID --json"))
def show(report_id: _Id, as_json: _Json = False) -> None:
    """Show one report.

    As text, or with --json as the whole JSON document.
    """
    from dragoman.agent.reporting import ReportShelf
    from dragoman.core.settings import load_settings

    shelf = ReportShelf(load_settings().reports_folder)
    if as_json:
        emit_json(shelf.load(report_id).model_dump(mode="json"))
    else:
        emit_text(shelf.export(report_id, "md").rstrip("\n"))


@app.command(epilog=examples("dragoman report export ID --format html --out report.html"))
def export(
    report_id: _Id,
    kind: Annotated[Format, typer.Option("--format", help="Which rendering.")],
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write here, not to standard output.")
    ] = None,
) -> None:
    """Write a report as md, html or json.

    To standard output, or into a file.
    """
    from dragoman.agent.reporting import ReportShelf
    from dragoman.core.errors import UserError
    from dragoman.core.files import write_atomic
    from dragoman.core.settings import load_settings

    text = ReportShelf(load_settings().reports_folder).export(report_id, kind.value)
    if out is None:
        # On a terminal nothing hidden gets through; a file gets the text to the byte.
        (emit_text if sys.stdout.isatty() else emit)(text.removesuffix("\n"))
        return
    try:
        write_atomic(out, text)
    except OSError as error:
        raise UserError(f"--out {out}: {error.strerror}") from None
    emit(str(out))
