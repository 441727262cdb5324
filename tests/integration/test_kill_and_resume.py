"""kill -9 at any event of an audit, then resume: nothing is lost, nothing is paid for twice."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from dragoman.agent.ledger import Ledger
from dragoman.core.report import Report

Start: TypeAlias = Callable[..., int]
Setup: TypeAlias = tuple[dict[str, Any], dict[str, list[str]]]
ORDER = ["plan", "fill", "critique", "plan", "fill", "critique", "narrative", "narrative"]


@pytest.fixture
def start() -> Iterator[Start]:
    """`start(home, values, replies, resume, kill_at)` runs an audit elsewhere; its exit status."""
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("audit_process.py"))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    orders, statuses = process.stdin, process.stdout
    assert orders is not None
    assert statuses is not None

    def run(home: Path, setup: Setup, resume: str | None = None, kill_at: int = 0) -> int:
        values, replies = setup
        order = {"home": str(home), "values": values, "replies": replies}
        orders.write(json.dumps({**order, "resume": resume, "kill_at": kill_at}) + "\n")
        orders.flush()
        return int(statuses.readline())

    yield run
    orders.close()
    process.wait(10)
    statuses.close()


def _essence(report: Report) -> dict[str, Any]:
    """A report without what differs between two runs of the same audit: its name and its times."""
    body: dict[str, Any] = report.model_dump(
        mode="json", exclude={"started", "finished", "id", "cost"}
    )
    return body


@pytest.fixture
def setup(subject_folder: str, relation_file: str) -> Setup:
    values = {
        "subject": subject_folder,
        "questions": ["Does it know the letters?", "What follows the prompt 'A dog is an'?"],
        "relations": [relation_file],
        "quick": True,
    }
    concern = json.dumps({"concerns": [1]})

    def narrative(claim: str) -> str:
        text = "The hypothesis was refuted by the measurement."
        return json.dumps({"sentences": [{"claim_ids": [claim], "text": text}]})

    replies = {
        "plan": [
            json.dumps({"templates": ["knows_relation"]}),
            json.dumps({"templates": ["predicts_answer"]}),
        ],
        "fill": [
            json.dumps({"relation": relation_file}),
            json.dumps({"prompt": "A dog is an", "answer": "animal"}),
        ],
        "critique": [concern, concern],
        "narrative": [narrative("q1r1h1c1"), narrative("q2r1h1c1")],
    }
    return values, replies


def _only_audit(home: Path) -> str:
    with Ledger(home / "ledger.sqlite3") as ledger:
        (row,) = ledger.audits()
    return row.audit_id


def _load(home: Path) -> Report:
    from dragoman.agent.reporting import ReportShelf

    return ReportShelf(home / "reports").load(_only_audit(home))


@pytest.fixture
def clean(start: Start, setup: Setup, tmp_path: Path) -> tuple[Report, int]:
    """The report of an audit that nobody kills, and how many events it has."""
    home = tmp_path / "clean"
    home.mkdir()
    assert start(home, setup) == 0
    return _load(home), int((home / "events.txt").read_text())


def _kill_and_resume(home: Path, start: Start, setup: Setup, kill_at: int) -> tuple[Report, int]:
    """The report after a kill and a resumption, and how many experiments were tried twice."""
    home.mkdir()
    assert start(home, setup, kill_at=kill_at) == -signal.SIGKILL
    audit_id = _only_audit(home)
    bill = home / "paid.txt"
    paid = bill.read_text().split() if bill.exists() else []
    with Ledger(home / "ledger.sqlite3") as ledger:
        spent = ledger.spent(audit_id)
    assert spent.calls == len(paid)
    # The script goes on where it was: the replies that were recorded are gone. A call that the
    # kill cut off in the middle of its text was charged, and has to be made again.
    assert spent.in_doubt <= 1
    values, replies = setup
    left = {purpose: [*texts] for purpose, texts in replies.items()}
    for purpose in ORDER[: spent.calls - spent.in_doubt]:
        left[purpose].pop(0)
    assert start(home, (values, left), resume=audit_id) == 0
    report = _load(home)
    calls = bill.read_text().split()
    assert len(set(calls)) == len(ORDER)
    assert len(calls) == len(ORDER) + spent.in_doubt
    with Ledger(home / "ledger.sqlite3") as ledger:
        experiments = {each.experiment_id for each in report.evidence}
        attempts = [ledger.attempts(audit_id, each) for each in experiments]
    assert max(attempts) <= 2
    return report, sum(count > 1 for count in attempts)


def _check_kills(
    step: int, clean: tuple[Report, int], start: Start, setup: Setup, folder: Path
) -> None:
    expected, n_events = clean
    repeated = 0
    for kill_at in range(2, n_events + 1, step):
        report, twice = _kill_and_resume(folder / f"kill{kill_at}", start, setup, kill_at)
        assert _essence(report) == _essence(expected), f"killed at event {kill_at}"
        assert twice <= 1
        repeated += twice
    # Some kills fell into an experiment, or the test proves nothing.
    assert repeated >= 1


def test_a_kill_now_and_then_changes_nothing(
    clean: tuple[Report, int], start: Start, setup: Setup, tmp_path: Path
) -> None:
    _check_kills(7, clean, start, setup, tmp_path)


@pytest.mark.slow
def test_a_kill_at_every_event_changes_nothing(
    clean: tuple[Report, int], start: Start, setup: Setup, tmp_path: Path
) -> None:
    _check_kills(1, clean, start, setup, tmp_path)
