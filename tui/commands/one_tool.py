"""One tool run for a command: a mistake told before any weights load, progress, one result."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

from dragoman.core.errors import DragomanError, ExitCode
from dragoman.core.events import EventSink
from dragoman.core.records import Experiment, JsonObject, ToolResult
from dragoman.tui.commands.interrupt import stoppable
from dragoman.tui.commands.output import complain, emit_json, results_only

Call: TypeAlias = tuple[str, JsonObject]
"""A tool's name and its arguments."""
Show: TypeAlias = Callable[[ToolResult, Path], None]
"""Given a result that is no error, and the data folder."""


def run_one(
    call: Call,
    relations: Sequence[str],
    subject: str,
    seed: int,
    as_json: bool,
    after: Show | None = None,
    *,
    show: Show | None = None,
    facts: Path | None = None,
) -> int:
    """Run one tool and print what it found; an error is one line, or one object with --json.

    Args:
        call: what to run.
        relations: relations that it names; one that cannot be read ends the command at once.
        subject: a known subject, a folder or a hub id.
        seed: of everything random.
        as_json: print the result as one JSON object and nothing else.
        after: called with every result, once it is printed.
        show: prints the result in place of the usual table.
        facts: a file of facts that it names, read beforehand like the relations.
    """
    from dragoman.core.settings import load_settings
    from dragoman.tui.commands.tool import show_result

    name, arguments = call
    settings = load_settings()
    try:
        with results_only():
            from dragoman.tools.catalogue import TOOLS
            from dragoman.tools.fact_files import read_fact_file
            from dragoman.tools.relations import load_relation

            TOOLS[name].parse(arguments)
            for relation in relations:
                load_relation(relation)
            if facts is not None:
                read_fact_file(facts)
            result = _run(call, subject, seed)
    except DragomanError as error:
        if not as_json:
            raise
        refused = Experiment(tool=name, arguments=arguments, subject_digest="", seed=seed)
        emit_json(ToolResult.failure(refused, str(error)).model_dump(mode="json"))
        complain(str(error))
        return error.exit_code
    if as_json:
        emit_json(result.model_dump(mode="json"))
    if result.status == "error":
        complain(result.error or result.summary)
        return ExitCode.WRONG_INPUT
    if not as_json:
        if show is None:
            show_result(result)
        else:
            show(result, settings.home)
    if after is not None:
        after(result, settings.home)
    return ExitCode.DONE


def _run(call: Call, subject: str, seed: int) -> ToolResult:
    from dragoman.agent.workbench import open_workbench
    from dragoman.core.settings import load_settings
    from dragoman.tui.commands.live import run_display

    with run_display() as display:
        sink: EventSink = display.on_event
        with (
            stoppable(
                lambda: display.say("stopping at the next step", "yellow"), display.restore
            ) as cancelled,
            open_workbench(load_settings(), subject=subject, on_event=sink) as bench,
        ):
            return bench.run_tool(call[0], call[1], seed=seed, on_event=sink, cancelled=cancelled)
