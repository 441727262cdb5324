"""A process that forks an audit for each line of its input, so that torch is imported once.

Each line is JSON: home, values (of the specification), replies (of the script), resume, kill_at.
The answer to each is the exit status of the fork, as `os.waitstatus_to_exitcode` gives it.
"""

import json
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

import torch

from dragoman.agent.audit import run_audit
from dragoman.agent.chat_scripted import ScriptedChat
from dragoman.agent.ledger import Ledger
from dragoman.agent.specification import make_specification
from dragoman.agent.workbench import Workbench
from dragoman.core.settings import Settings
from dragoman.tools.catalogue import TOOLS


class CountingChat(ScriptedChat):
    """Writes down each call that reaches it: those are the ones that would be paid for."""

    def __init__(self, replies: dict[str, list[str]], bill: Path) -> None:
        super().__init__(replies)
        self.bill = bill

    def complete(self, request: Any, **options: Any) -> Any:
        with self.bill.open("a") as paid:
            paid.write(request.content_id() + "\n")
        return super().complete(request, **options)


def audit(order: dict[str, Any]) -> None:
    """Run the audit; die by SIGKILL at the event of the number `kill_at`."""
    torch.set_num_threads(1)
    home = Path(order["home"])
    settings = Settings(home=home)
    seen = 0

    def on_event(event: Any) -> None:
        nonlocal seen
        seen += 1
        if seen == order["kill_at"]:
            os.kill(os.getpid(), signal.SIGKILL)

    specification = make_specification(order["values"])
    with Ledger(settings.ledger_file) as ledger:
        chat = CountingChat(order["replies"], home / "paid.txt")
        bench = Workbench(settings, specification.subject, ledger, chat, None)
        run_audit(
            specification,
            bench,
            on_event=on_event,
            cancelled=lambda: False,
            resume=order["resume"],
        )
    (home / "events.txt").write_text(str(seen))


def main() -> None:
    """Serve until the input ends."""
    assert TOOLS
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            try:
                audit(json.loads(line))
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
