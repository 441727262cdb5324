"""A recorded audit and runners that play it back, for every test of the terminal program."""

import asyncio
import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import pytest
from pydantic import TypeAdapter
from textual.pilot import Pilot

from dragoman.agent.reporting import Damaged
from dragoman.core.errors import DragomanError, IntegrityError
from dragoman.core.events import EventSink, RunEvent
from dragoman.core.protocols import Cancelled, stop_if
from dragoman.core.records import ToolResult
from dragoman.core.report import Report, ReportRow
from dragoman.tui.app import DragomanApp
from dragoman.tui.cli import run
from dragoman.tui.widgets.question_input import QuestionInput

FIXTURES = Path(__file__).parents[2] / "fixtures"
_EVENTS = TypeAdapter(list[RunEvent])


class Said(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def result(self) -> ToolResult:
        return ToolResult.model_validate_json(self.out)


Call: TypeAlias = Callable[..., Said]


@pytest.fixture
def call(request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> Call:
    """`dragoman`, with the words that the module has in `COMMAND` before those given."""
    before: Sequence[str] = getattr(request.module, "COMMAND", ())

    def calling(*arguments: str) -> Said:
        code = run([*before, *arguments])
        captured = capsys.readouterr()
        return Said(code, captured.out, captured.err)

    return calling


@dataclass
class Player:
    """A runner that plays events; `steps` lets through one event for each `release`."""

    events: Sequence[RunEvent]
    outcome: Report | DragomanError | Exception
    steps: threading.Semaphore | None = None
    asked: list[str] = field(default_factory=list)

    def __call__(self, question: str, *, on_event: EventSink, cancelled: Cancelled) -> Report:
        self.asked.append(question)
        for event in self.events:
            while self.steps is not None and not self.steps.acquire(timeout=0.01):
                stop_if(cancelled)
            stop_if(cancelled)
            on_event(event)
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


@dataclass
class Shelf:
    """Reports in memory; some of them damaged."""

    reports: list[Report] = field(default_factory=list)
    torn: tuple[str, ...] = ()
    """Ids that have a row, and cannot be opened any more."""
    unread: tuple[Damaged, ...] = ()
    unreadable: DragomanError | None = None

    def rows(self) -> list[ReportRow]:
        if self.unreadable is not None:
            raise self.unreadable
        rows = [
            ReportRow(
                id=each.id,
                question=each.questions[0],
                subject=each.subject.name,
                finished=each.finished,
                outcome=each.outcome,
                n_claims=len(each.claims),
            )
            for each in self.reports
        ]
        return rows + [
            ReportRow(
                id=each,
                question="?",
                subject="?",
                finished="",
                outcome="interrupted",
                n_claims=0,
            )
            for each in self.torn
        ]

    def damaged(self) -> tuple[Damaged, ...]:
        return self.unread

    def load(self, report_id: str, /) -> Report:
        for each in self.reports:
            if each.id == report_id:
                return each
        raise IntegrityError(f"report {report_id} is damaged; remove its folder")


@dataclass
class Terminal:
    """An app under test, and what a person does with it."""

    app: DragomanApp
    pilot: Pilot[None]

    async def ask(self, question: str, *, finish: bool = True) -> None:
        """Send; with `finish`, until the answer stands there."""
        self.app.chat.query_one(QuestionInput).value = question
        await self.pilot.press("enter")
        await self.pilot.pause()
        if finish:
            await self.finish()

    async def finish(self) -> None:
        """Wait for the running question's thread, then for the screen."""
        running = self.app.chat.running
        if running is not None:
            await asyncio.to_thread(running.join, 30)
        await self.pilot.pause()
        assert not self.app.chat.busy
        await self.pilot.pause()

    async def settle(self) -> None:
        """Let a message that leads to another message arrive."""
        for _ in range(4):
            await self.pilot.pause()

    def text(self) -> str:
        """The characters on the screen, line by line."""
        strips = self.app.screen._compositor.render_strips()
        return "\n".join(strip.text.rstrip() for strip in strips)


@pytest.fixture(scope="session")
def events() -> list[RunEvent]:
    """The events of one whole audit."""
    return _EVENTS.validate_json((FIXTURES / "events.json").read_text())


@pytest.fixture(scope="session")
def report_json() -> dict[str, Any]:
    """The report of that audit, as JSON."""
    loaded: dict[str, Any] = json.loads((FIXTURES / "report.json").read_text())
    return loaded


@pytest.fixture(scope="session")
def report(report_json: dict[str, Any]) -> Report:
    """The report of that audit."""
    return Report.model_validate_json(json.dumps(report_json))


@pytest.fixture(name="Player", scope="session")
def player_type() -> type[Player]:
    return Player


@pytest.fixture(name="Shelf", scope="session")
def shelf_type() -> type[Shelf]:
    return Shelf


@pytest.fixture(name="Terminal", scope="session")
def terminal_type() -> type[Terminal]:
    return Terminal


@pytest.fixture
def app(events: list[RunEvent], report: Report) -> DragomanApp:
    """The program with the recorded audit behind it."""
    return DragomanApp(Player(events, report), Shelf([report]), "smollm2", "qwen2.5-coder-1.5b")
