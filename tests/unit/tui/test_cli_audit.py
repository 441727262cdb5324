"""`dragoman audit` around a recorded run: exit codes, renderings, resumption, Ctrl-C."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from dragoman.agent.reporting import ReportShelf
from dragoman.agent.specification import Specification
from dragoman.core.errors import ChatError
from dragoman.core.events import EventSink, RunEvent
from dragoman.core.protocols import Cancelled
from dragoman.core.report import Outcome, Report
from dragoman.core.settings import load_settings

from .conftest import Call

COMMAND = ("audit",)

FIXTURES = Path(__file__).parents[2] / "fixtures"
QUESTION = ("--question", "Does it know capitals?", "--chat", "none")


class Recorded:
    """Plays a recorded run in place of the agent, and notes what it was asked."""

    def __init__(self) -> None:
        events = (FIXTURES / "events.json").read_text("utf-8")
        self.events = TypeAdapter(list[RunEvent]).validate_json(events)
        report = (FIXTURES / "report.json").read_text("utf-8")
        self.report = Report.model_validate_json(report)
        self.outcome: Outcome = "done"
        self.asked: list[tuple[Specification, str | None]] = []
        self.before_end: Callable[[], object] = lambda: None
        self.saw_cancelled = False

    def __call__(
        self,
        specification: Specification,
        bench: Any,
        *,
        on_event: EventSink,
        cancelled: Cancelled,
        resume: str | None = None,
    ) -> Report:
        self.asked.append((specification, resume))
        for event in self.events:
            on_event(event)
        self.before_end()
        self.saw_cancelled = cancelled()
        gates = self.report.gates
        if self.outcome == "gate failed":
            gates = (gates[0].model_copy(update={"passed": False}), *gates[1:])
        outcome = "interrupted" if self.saw_cancelled else self.outcome
        report = self.report.model_copy(update={"outcome": outcome, "gates": gates})
        ReportShelf(bench.settings.reports_folder).save(report, FIXTURES / "report_home")
        return report


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch, tiny_subject: Any) -> Recorded:
    player = Recorded()
    monkeypatch.setattr("dragoman.agent.audit.run_audit", player)
    monkeypatch.setattr("dragoman.agent.workbench.Workbench.subject", tiny_subject)
    return player


@pytest.mark.parametrize(
    ("outcome", "code"),
    [("done", 0), ("gate failed", 1), ("limit reached", 3), ("interrupted", 130)],
)
def test_the_outcome_is_the_exit_code(
    call: Call, recorded: Recorded, outcome: Outcome, code: int
) -> None:
    recorded.outcome = outcome
    said = call(*QUESTION)
    assert said.code == code
    reports = load_settings().reports_folder / recorded.report.id
    assert f"report: {reports / 'report.html'}" in said.out
    assert ("--resume" in said.err) == (outcome == "interrupted")


def test_json_is_one_object_and_all_else_is_on_standard_error(
    call: Call, recorded: Recorded
) -> None:
    said = call(*QUESTION, "--json")
    printed = json.loads(said.out)
    assert printed["id"] == recorded.report.id
    assert printed["exit_code"] == 0
    assert [claim["status"] for claim in printed["claims"]] == [
        claim.status for claim in recorded.report.claims
    ]
    assert all("{" not in claim["rendered"] for claim in printed["claims"])
    assert all(Path(path).is_file() for path in printed["report"].values())
    assert "approximate_relation" in said.err


def test_progress_off_a_terminal_is_plain_lines(call: Call, recorded: Recorded) -> None:
    said = call(*QUESTION)
    assert "\x1b" not in said.err
    assert "\r" not in said.err
    lines = said.err.splitlines()
    assert sum(line.startswith("  ◆ ") for line in lines) == len(recorded.report.claims)


def test_out_gets_every_rendering(call: Call, recorded: Recorded, tmp_path: Path) -> None:
    said = call(*QUESTION, "--out", str(tmp_path / "deep" / "out"))
    assert said.code == 0
    names = {path.name for path in (tmp_path / "deep" / "out").iterdir()}
    assert names == {"report.json", "report.md", "report.html"}


def test_options_win_over_the_file(call: Call, recorded: Recorded, tmp_path: Path) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text("questions: [a, b]\nseed: 3\nbudgets: {minutes: 9, steps: 4}\n")
    said = call(str(spec), "--seed", "5", "--max-minutes", "2", "--quick", "--chat", "none")
    assert said.code == 0, said.err
    specification, _ = recorded.asked[0]
    assert specification.questions == ("a", "b")
    assert (specification.seed, specification.quick) == (5, True)
    assert (specification.budgets.minutes, specification.budgets.steps) == (2.0, 4)


def test_without_a_question_one_is_asked_for_each_method(call: Call, recorded: Recorded) -> None:
    assert call("--chat", "none").code == 0
    assert len(recorded.asked[0][0].questions) == 3


def test_resume_takes_the_stored_specification(call: Call, recorded: Recorded) -> None:
    from dragoman.agent.ledger import Ledger

    stored = Specification(questions=("first",), seed=11)
    with Ledger(load_settings().ledger_file) as ledger:
        ledger.start_audit("20260101-000000-aaaa", stored.model_dump(mode="json"), "2026-01-01")
    said = call("--resume", "20260101-000000-aaaa", "--max-minutes", "3", "--chat", "none")
    assert said.code == 0, said.err
    specification, resume = recorded.asked[0]
    assert resume == "20260101-000000-aaaa"
    assert (specification.questions, specification.seed) == (("first",), 11)
    assert specification.budgets.minutes == 3.0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_asks_the_run_to_stop_and_says_how_to_go_on(
    call: Call, recorded: Recorded, number: signal.Signals
) -> None:
    before = signal.getsignal(number)
    recorded.before_end = lambda: os.kill(os.getpid(), number)
    said = call(*QUESTION)
    assert recorded.saw_cancelled
    assert said.code == 130
    assert "stopping at the next step" in said.err
    assert f"go on with: dragoman audit --resume {recorded.report.id}" in said.err
    assert signal.getsignal(number) == before


def test_a_chat_error_keeps_the_way_to_resume(call: Call, recorded: Recorded) -> None:
    def fail() -> None:
        raise ChatError("the endpoint answers HTTP 401")

    recorded.before_end = fail
    said = call(*QUESTION)
    assert said.code == 4
    assert said.err.endswith(
        f"go on with: dragoman audit --resume {recorded.events[0].audit_id}\n"  # type: ignore[union-attr]
        "error: the endpoint answers HTTP 401\n"
    )


def test_a_subject_that_is_none_is_told_before_anything_is_recorded(call: Call) -> None:
    said = call("--subject", "nowhere", *QUESTION)
    assert said.code == 2
    assert said.err.splitlines()[-1].startswith("error: subject 'nowhere' is neither 'smollm2'")
    assert "--resume" not in said.err
