"""`dragoman doctor`: whether audits can run here, and what would make more possible."""

from typing import Annotated

import typer
from pydantic import JsonValue

from dragoman.core.errors import ExitCode
from dragoman.tui.commands.output import emit_json, emit_text, examples

EXAMPLES = examples("dragoman doctor", "dragoman doctor --json")
_MARKS = {"ok": "✓", "missing": "✗", "optional": "·"}


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> int:
    """Check whether audits can run here.

    Looks at what is installed, reachable and configured, and says how to get what is missing.
    Exit code 2 if audits cannot run.
    """
    from dragoman.agent.doctor import diagnose
    from dragoman.core.settings import load_settings

    diagnosis = diagnose(load_settings())
    if as_json:
        checks: list[JsonValue] = [check.model_dump(mode="json") for check in diagnosis.checks]
        emit_json({"can_audit": diagnosis.can_audit, "checks": checks})
    else:
        width = max(len(check.name) for check in diagnosis.checks)
        for check in diagnosis.checks:
            emit_text(f"{_MARKS[check.state]} {check.name:<{width}}  {check.detail}")
            if check.remedy:
                emit_text(f"  {'':<{width}}  → {check.remedy}")
        emit_text("audits can run" if diagnosis.can_audit else "audits cannot run yet: see ✗ above")
    return ExitCode.DONE if diagnosis.can_audit else ExitCode.WRONG_INPUT
