"""`dragoman chat`: the terminal application."""

import sys
from contextlib import ExitStack
from typing import Annotated

import typer

from dragoman.agent.workbench import ChatMode
from dragoman.core.events import EventSink
from dragoman.core.protocols import Cancelled
from dragoman.core.report import Report
from dragoman.tui.commands.audit import CHAT_HELP
from dragoman.tui.commands.output import examples

EXAMPLES = examples("dragoman chat", "dragoman chat --subject ./my-model --chat none")


def chat(
    subject: Annotated[
        str, typer.Option(help="The network to ask about: a name, a folder or a hub id.")
    ] = "smollm2",
    chat: Annotated[ChatMode, typer.Option(help=CHAT_HELP)] = "auto",
    full: Annotated[
        bool, typer.Option("--full", help="Full samples: slower answers, narrower intervals.")
    ] = False,
) -> int:
    """Ask and read reports in the terminal.

    Ctrl-Q quits at any time; Esc stops the question that is under way.
    """
    from dragoman.agent.reporting import ReportShelf
    from dragoman.agent.specification import make_specification
    from dragoman.core.errors import UserError
    from dragoman.core.settings import load_settings
    from dragoman.tui.app import run_app
    from dragoman.tui.running import Runner

    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UserError("`dragoman chat` needs a terminal; `dragoman audit` runs without one")
    settings = load_settings()
    opened = ExitStack()

    def build(on_event: EventSink) -> Runner:
        from dragoman.agent.audit import run_audit
        from dragoman.agent.workbench import open_workbench

        bench = opened.enter_context(
            open_workbench(settings, subject=subject, chat=chat, on_event=on_event)
        )

        def answer(question: str, *, on_event: EventSink, cancelled: Cancelled) -> Report:
            specification = make_specification(
                {"questions": [question], "subject": subject, "quick": not full}
            )
            return run_audit(specification, bench, on_event=on_event, cancelled=cancelled)

        return answer

    return run_app(
        build,
        ReportShelf(settings.reports_folder),
        subject_label=subject,
        chat_label=chat,
        close=opened.close,
    )
