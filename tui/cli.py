"""The `dragoman` command: every error is one line on standard error and a documented exit code.

Importing this module loads no torch, transformers, chromadb, openai or textual: each command
imports what it needs when it runs.
"""

import sys
import traceback
from collections.abc import Sequence
from typing import Annotated, NoReturn

import typer

from dragoman import __version__
from dragoman.core.errors import DragomanError, ExitCode
from dragoman.tui.commands import (
    audit,
    caption,
    chat,
    doctor,
    edit,
    exemplars,
    memory,
    relation,
    report,
    tool,
    weights,
)
from dragoman.tui.commands.output import complain, emit, examples, help_without_command, say

BUG = 70
"""Exit code of an error in Dragoman itself (EX_SOFTWARE of sysexits.h)."""

app = typer.Typer(
    name="dragoman",
    help="An LLM agent that interprets neural networks and answers with evidence.",
    epilog=examples(
        "dragoman audit --quick",
        'dragoman tool run predict_next --args \'{"prompt": "The capital of France is"}\'',
        "dragoman doctor",
    ),
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    invoke_without_command=True,
)
app.command("audit", epilog=audit.EXAMPLES)(audit.audit)
app.command("caption", epilog=caption.EXAMPLES)(caption.caption)
app.command("chat", epilog=chat.EXAMPLES)(chat.chat)
app.add_typer(exemplars.app)
app.add_typer(tool.app)
app.add_typer(relation.app)
app.add_typer(edit.app)
app.add_typer(report.app)
app.add_typer(memory.app)
app.add_typer(weights.app)
app.command("doctor", epilog=doctor.EXAMPLES)(doctor.doctor)


def _show_version(wanted: bool) -> None:
    if wanted:
        emit(f"dragoman {__version__}")
        raise typer.Exit


@app.callback()
def root(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Show the version and exit.", callback=_show_version, is_eager=True
        ),
    ] = False,
) -> None:
    """Show the help when called alone."""
    help_without_command(context)


def run(arguments: Sequence[str] | None = None) -> int:
    """Carry out one command line and return its exit code; prints errors, raises none."""
    command = typer.main.get_command(app)
    try:
        result = command.main(args=arguments, prog_name="dragoman", standalone_mode=False)
    except DragomanError as error:
        complain(str(error))
        return error.exit_code
    except typer.TyperException as error:  # a wrong option or argument
        context = getattr(error, "ctx", None)
        path = context.command_path if context is not None else "dragoman"
        reason = error.format_message().replace("Value error, ", "").rstrip(".")
        complain(f"{reason} (see `{path} --help`)")
        return ExitCode.WRONG_INPUT
    except (KeyboardInterrupt, typer.Abort):
        complain("interrupted")
        return ExitCode.INTERRUPTED
    except SystemExit:  # typer's answer to a reader that went away
        return ExitCode.DONE
    except Exception:
        # Without the values of variables, among which may be a key or a subject's text.
        say(traceback.format_exc())
        complain("this is a bug in Dragoman; the traceback above belongs in a report of it")
        return BUG
    return int(result or 0)


def main() -> NoReturn:
    """Entry point of the `dragoman` command."""
    sys.exit(run())
