"""Check: assemble the report and refuse it if anything in it is not carried."""

from typing import Any

from dragoman.agent.assembly import assemble
from dragoman.agent.desk import Desk
from dragoman.agent.reporting import ReportShelf
from dragoman.agent.state import AuditState


def check(state: AuditState, desk: Desk) -> dict[str, Any]:
    """Put the checked report on the shelf; an unsound one is an `IntegrityError`."""
    desk.phase("check", "every claim, number and status against its evidence")
    report = assemble(desk, stopped=state["stopped"])
    settings = desk.bench.settings
    ReportShelf(settings.reports_folder).save(report, settings.home)
    return {}
