"""`dragoman relation fit FOLDER`: every file of a folder into one table and one page."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import JsonValue

from dragoman.core.errors import ExitCode, Interrupted, UserError
from dragoman.core.events import EventSink, Notice
from dragoman.core.records import JsonObject, ToolResult, content_id
from dragoman.tui.commands.interrupt import stoppable
from dragoman.tui.commands.output import complain, emit, emit_json, emit_table, results_only, say

if TYPE_CHECKING:
    from dragoman.core.protocols import Cancelled
    from dragoman.tools.circuits.batch import RelationRow


def fit_folder(
    folder: Path, out: Path, arguments: JsonObject, subject: str, seed: int, as_json: bool
) -> int:
    """Measure what is not yet in `out`, write table and page there; 2 if a file is at fault."""
    from dragoman.core.settings import load_settings
    from dragoman.tools.circuits.batch import relation_files
    from dragoman.tui.commands.live import run_display

    files = relation_files(folder)
    settings = load_settings()
    with results_only(), run_display() as display:

        def stopping() -> None:
            display.say("stopping at the next step; Ctrl-C again ends at once", "yellow")

        with stoppable(stopping, display.restore) as cancelled:
            try:
                rows = _measure(
                    folder, files, out, arguments, subject, seed, display.on_event, cancelled
                )
            except Interrupted:
                say(f"the finished rows are in {out}: the same command goes on from there")
                raise
        from dragoman.tools.circuits.page import write_page
        from dragoman.tools.circuits.table import flat, write_table

        title = f"{len(rows)} relations of {folder.resolve().name} on {subject}"
        written = [*write_table(out, rows), write_page(out, rows, title, settings.home)]
    faults = [row.fault for row in rows if row.fault]
    if as_json:
        paths: list[JsonValue] = [str(path) for path in written]
        emit_json({"relations": [flat(row) for row in rows], "files": paths})
    else:
        _show_rows(rows)
        for path in written:
            emit(str(path))
    for fault in faults:
        complain(fault)
    return ExitCode.WRONG_INPUT if faults else ExitCode.DONE


def _measure(
    folder: Path,
    files: Sequence[Path],
    out: Path,
    arguments: JsonObject,
    subject: str,
    seed: int,
    sink: EventSink,
    cancelled: "Cancelled",
) -> "list[RelationRow]":
    from dragoman.agent.workbench import open_workbench
    from dragoman.core.protocols import stop_if
    from dragoman.core.settings import load_settings
    from dragoman.tools.circuits.batch import run_batch
    from dragoman.tools.registry import tools_digest

    with open_workbench(load_settings(), subject=subject, on_event=sink) as bench:
        key = content_id(
            {
                "subject": bench.subject.identity.digest,
                "arguments": arguments,
                "seed": seed,
                "code": tools_digest(),
            }
        )

        def run(path: Path) -> ToolResult:
            given: JsonObject = {"relation": str(path.resolve()), **arguments}
            return bench.run_tool(
                "approximate_relation", given, seed=seed, on_event=sink, cancelled=cancelled
            )

        def step(done: int, total: int, text: str) -> None:
            stop_if(cancelled)
            sink(Notice(text=text))

        try:
            return run_batch(folder, files, out, key, run, step)
        except OSError as error:
            raise UserError(f"--out {out}: {error.strerror}") from None


def _show_rows(rows: "Sequence[RelationRow]") -> None:
    from dragoman.tools.circuits.table import METRICS, flat

    def cell(value: JsonValue) -> str:
        return f"{value:.2f}" if isinstance(value, float) else "-"

    table = []
    for row in rows:
        found = flat(row)
        numbers = [cell(found[metric]) for metric in METRICS]
        table.append((row.file, row.relation, row.kind or "-", *numbers))
    header = ("FILE", "RELATION", "KIND", *(metric.upper() for metric in METRICS))
    emit_table(header, table, empty="no relations")
