"""What the screens look like, at two fixed sizes. Accept a change with `--snapshot-update`."""

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter
from textual.pilot import Pilot

from dragoman.agent.reporting import Damaged
from dragoman.core.events import EventSink, RunEvent, ToolProgress
from dragoman.core.protocols import Cancelled
from dragoman.core.report import Report, ReportRow
from dragoman.tui.app import DragomanApp
from dragoman.tui.widgets.answer import ClaimLink
from dragoman.tui.widgets.fold import Fold
from dragoman.tui.widgets.question_input import QuestionInput

FIXTURES = Path(__file__).parents[2] / "fixtures"
EVENTS = TypeAdapter(list[RunEvent]).validate_json((FIXTURES / "events.json").read_text())
REPORT = Report.model_validate_json((FIXTURES / "report.json").read_text())
SIZES = [(80, 24), (120, 40)]
QUESTION = "Are capitals decoded linearly?"


class Shelf:
    def rows(self) -> list[ReportRow]:
        row = ReportRow(
            id=REPORT.id,
            question=REPORT.questions[0],
            subject=REPORT.subject.name,
            finished=REPORT.finished,
            outcome=REPORT.outcome,
            n_claims=len(REPORT.claims),
        )
        return [row, row.model_copy(update={"outcome": "limit reached", "n_claims": 0})]

    def damaged(self) -> list[Damaged]:
        return []

    def load(self, report_id: str, /) -> Report:
        return REPORT


def _replay(question: str, *, on_event: EventSink, cancelled: Cancelled) -> Report:
    for event in EVENTS:
        on_event(event)
    return REPORT


async def _ask(pilot: Pilot[None]) -> None:
    await pilot.pause()
    pilot.app.screen.query_one(QuestionInput).value = QUESTION
    await pilot.press("enter")
    await pilot.pause()
    app = pilot.app
    assert isinstance(app, DragomanApp)
    if app.chat.running is not None:
        await asyncio.to_thread(app.chat.running.join, 30)
    for _ in range(4):
        await pilot.pause()


async def _evidence(pilot: Pilot[None]) -> None:
    await _ask(pilot)
    pilot.app.screen.query(ClaimLink).first().focus()
    await pilot.press("enter")
    await pilot.pause()


async def _cards(pilot: Pilot[None]) -> None:
    await _ask(pilot)
    for fold in pilot.app.screen.query(Fold):
        fold.opened = True
    await pilot.pause()
    pilot.app.screen.query_one("#conversation").scroll_to(y=14, animate=False, force=True)
    await pilot.pause()


async def _shelf(pilot: Pilot[None]) -> None:
    await pilot.press("f2")
    await pilot.app.workers.wait_for_complete()
    await pilot.pause()


async def _report(pilot: Pilot[None]) -> None:
    await _shelf(pilot)
    await pilot.press("enter")
    await pilot.app.workers.wait_for_complete()
    for _ in range(3):
        await pilot.pause()


async def _light(pilot: Pilot[None]) -> None:
    await _evidence(pilot)
    await pilot.press("ctrl+t")


VIEWS = {
    "welcome": lambda pilot: pilot.pause(),
    "answer": _ask,
    "cards": _cards,
    "evidence": _evidence,
    "light": _light,
    "shelf": _shelf,
    "report": _report,
}


@pytest.mark.parametrize(
    ("view", "size"),
    [
        pytest.param(view, size, id=f"{view}-{size[0]}x{size[1]}")
        for view in VIEWS
        for size in SIZES
        if view != "light" or size == SIZES[-1]
    ],
)
def test_view(snap_compare: Any, view: str, size: tuple[int, int]) -> None:
    app = DragomanApp(_replay, Shelf(), "smollm2", "qwen2.5-coder-1.5b")
    assert snap_compare(app, terminal_size=size, run_before=VIEWS[view])


def test_running(snap_compare: Any) -> None:
    upto = max(place for place, event in enumerate(EVENTS) if isinstance(event, ToolProgress))
    shown = threading.Event()
    over = threading.Event()

    def hold(question: str, *, on_event: EventSink, cancelled: Cancelled) -> Report:
        for event in EVENTS[: upto + 1]:
            on_event(event)
        shown.set()
        over.wait(60)
        return REPORT

    async def ask(pilot: Pilot[None]) -> None:
        await pilot.press("w", "h", "y", "enter")
        await asyncio.to_thread(shown.wait, 30)
        for _ in range(4):
            await pilot.pause()

    app = DragomanApp(hold, Shelf(), "smollm2", "qwen2.5-coder-1.5b", clock=lambda: 0.0)
    try:
        assert snap_compare(app, terminal_size=(100, 30), run_before=ask)
    finally:
        over.set()
