"""The ledger keeps what it was told, once, whatever happens to the process."""

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from dragoman.agent.append_only import SCHEMA_VERSION
from dragoman.agent.ledger import Ledger, Spent
from dragoman.core.claims import Finding
from dragoman.core.errors import IntegrityError, UserError
from dragoman.core.protocols import ChatMessage, ChatReply, ChatRequest
from dragoman.core.records import Experiment, JsonObject, Measurement, ToolResult, ToolSuccess
from dragoman.core.report import ToolCost

REQUEST = ChatRequest(purpose="plan", messages=(ChatMessage(role="user", content="choose"),))
REPLY = ChatReply(text="yes", finish_reason="stop", prompt_tokens=7, completion_tokens=2, usd=0.25)
EXPERIMENT = Experiment(tool="predict_next", arguments={"k": 3}, subject_digest="abc", seed=1)
MEASUREMENT = Measurement(
    metric="faithfulness",
    value=0.1 + 0.2,
    unit="fraction",
    baseline=0.1,
    control="shuffled relation",
    ci95=(0.2, 0.4),
    n=12,
)
GOOD = ToolResult.success(EXPERIMENT, ToolSuccess(summary="fine", measurements=(MEASUREMENT,)))
BAD = ToolResult.failure(EXPERIMENT, "layer 41 is outside 0..29")


def finding(name: str) -> Finding:
    return Finding(
        id=name,
        text="France's capital is decoded linearly",
        status="replicated",
        subject_name="smollm2",
        subject_digest="abc",
        audit_id="a",
        created="2026-01-01T00:00:00Z",
        source="claim",
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "home" / "ledger.sqlite3"


def test_audits_are_listed_with_their_last_outcome(path: Path) -> None:
    with Ledger(path) as ledger:
        ledger.start_audit("a", {"question": "q"}, "2026-01-01T00:00:00Z")
        ledger.start_audit("b", {}, "2026-01-02T00:00:00Z")
        ledger.finish_audit("a", "interrupted", "Ctrl-C", "2026-01-01T00:01:00Z")
        ledger.finish_audit("a", "done", "", "2026-01-01T00:02:00Z")
        ledger.finish_audit("a", "done", "", "2026-01-01T00:02:00Z")
    with Ledger(path) as ledger:
        assert [row.audit_id for row in ledger.audits()] == ["a", "b"]
        assert ledger.audit("a").outcome == "done"
        assert ledger.audit("a").specification == {"question": "q"}
        assert ledger.audit("b").finished is None
        assert ledger.verify() == 4
        with pytest.raises(UserError, match=r"'c'.*report list"):
            ledger.audit("c")


def test_put_is_idempotent_and_guards_its_keys(path: Path) -> None:
    with Ledger(path) as ledger:
        ledger.put("a", "claim", "one", {"x": 0.1 + 0.2, "y": [1, None]})
        ledger.put("a", "claim", "one", {"y": [1, None], "x": 0.1 + 0.2})
        ledger.put("a", "claim", "two", MEASUREMENT)
        ledger.put("b", "claim", "one", {"x": 2})
        with pytest.raises(IntegrityError, match=r"claim 'one'.*another content"):
            ledger.put("a", "claim", "one", {"x": 3})
        assert ledger.get("a", "claim", "one") == {"x": 0.1 + 0.2, "y": [1, None]}
        assert ledger.get("a", "claim", "three") is None
        kept = ledger.entries("a", "claim")
        assert len(kept) == 2
        assert Measurement.model_validate(kept[1]) == MEASUREMENT
        with pytest.raises(ValueError, match="dot"):
            ledger.put("a", "audit.started", "", {})
        with pytest.raises(ValueError, match="JSON compliant"):
            ledger.put("a", "claim", "nan", {"x": float("nan")})


def test_lone_surrogates_are_normalised_once(path: Path) -> None:
    body: JsonObject = {"text": "a\ud800b", "pair": "\ud83d\ude00", "k\udc00": 1}
    with Ledger(path) as ledger:
        ledger.put("a", "note", "k\ud800", body)
        ledger.put("a", "note", "k\ud800", body)
        assert ledger.get("a", "note", "k\ud800") == {
            "text": "a\ufffdb",
            "pair": "\U0001f600",
            "k\ufffd": 1,
        }
        assert ledger.verify() == 1


def test_rows_can_neither_change_nor_leave(path: Path) -> None:
    with Ledger(path) as ledger:
        ledger.put("a", "claim", "one", {"x": 1})
    connection = sqlite3.connect(path)
    for statement in (
        "UPDATE rows SET body = '{}'",
        "DELETE FROM rows",
        "REPLACE INTO rows SELECT seq, audit_id, kind, key, '{}', sha256 FROM rows",
    ):
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            connection.execute(statement)
    connection.close()
    with Ledger(path) as ledger:
        assert ledger.entries("a", "claim") == [{"x": 1}]


def test_results_are_shared_and_failures_are_not(path: Path) -> None:
    with Ledger(path) as ledger:
        ledger.experiment_started("a", EXPERIMENT)
        ledger.experiment_finished("a", BAD, 1.0)
        ledger.experiment_finished("a", BAD, 2.0)
        assert ledger.result(EXPERIMENT.id) is None
        assert ledger.result(EXPERIMENT.id, "a") == BAD
        assert ledger.result(EXPERIMENT.id, "b") is None
        ledger.experiment_started("b", EXPERIMENT)
        ledger.experiment_finished("b", GOOD, 4.0)
        assert ledger.result(EXPERIMENT.id) == GOOD
        assert ledger.result(EXPERIMENT.id, "a") == GOOD
        assert ledger.result("else", "a") is None
        assert ledger.seconds("a") == (ToolCost(tool="predict_next", calls=1, seconds=1.0),)
        assert ledger.seconds("b") == (ToolCost(tool="predict_next", calls=1, seconds=4.0),)


def test_a_newer_success_wins_over_an_older_failure_of_the_same_audit(path: Path) -> None:
    with Ledger(path) as ledger:
        for result in (BAD, GOOD):
            ledger.experiment_started("a", EXPERIMENT)
            ledger.experiment_finished("a", result, 1.0)
        assert ledger.result(EXPERIMENT.id, "a") == GOOD
        assert ledger.attempts("a", EXPERIMENT.id) == 2
        assert ledger.attempts("b", EXPERIMENT.id) == 0
        assert ledger.steps("a") == {EXPERIMENT.id}
        assert ledger.steps("b") == frozenset()


def test_spend_counts_replies_at_cost_and_doubtful_calls_at_their_reserve(path: Path) -> None:
    with Ledger(path) as ledger:
        assert ledger.spent("a") == Spent()
        ledger.chat_reserved("a", "one", REQUEST, 100, 50, 1.0)
        assert ledger.spent("a") == Spent(
            calls=1, prompt_tokens=100, completion_tokens=50, usd=1.0, in_doubt=1
        )
        ledger.chat_reserved("a", "one", REQUEST, 100, 50, 1.0)  # a resume tries again
        ledger.chat_settled("a", "one", REPLY)
        ledger.chat_settled("a", "one", REPLY)
        assert ledger.chat_reply("a", "one") == REPLY
        assert ledger.chat_reply("b", "one") is None
        with pytest.raises(IntegrityError, match="replay"):
            ledger.chat_reserved("a", "one", REQUEST, 100, 50, 1.0)
        ledger.chat_reserved("a", "two", REQUEST, 100, 50, 1.0)
        ledger.chat_released("a", "two", "401")
        spent = ledger.spent("a")
        assert spent == Spent(
            calls=2, prompt_tokens=107, completion_tokens=52, usd=1.25, in_doubt=1
        )
        assert spent.tokens == 159
        ledger.chat_reserved("a", "three", REQUEST, 1, 1, None)
        assert ledger.spent("a").usd is None


def test_findings_come_once_and_from_all_audits(path: Path) -> None:
    with Ledger(path) as ledger:
        for audit, name in (("a", "f1"), ("b", "f2"), ("c", "f1")):
            ledger.put(audit, "finding", name, finding(name))
        assert ledger.findings() == [finding("f1"), finding("f2")]


def test_time_is_the_longest_of_each_session(path: Path) -> None:
    with Ledger(path) as ledger:
        for session, seconds in (("s", 1.0), ("s", 3.5), ("t", 2.0)):
            ledger.clock("a", session, seconds)
        assert ledger.seconds_used("a") == 5.5
        assert ledger.seconds_used("b") == 0.0


OWNER = """
import sys, time
from pathlib import Path
from dragoman.agent.ledger import Ledger
with Ledger(Path(sys.argv[1])) as ledger, ledger.own("a"):
    print("mine", flush=True)
    time.sleep(60)
"""


def test_one_owner_per_audit_and_death_lets_go(path: Path) -> None:
    with (
        Ledger(path) as ledger,
        subprocess.Popen(
            [sys.executable, "-c", OWNER, str(path)], stdout=subprocess.PIPE, text=True
        ) as other,
    ):
        assert other.stdout is not None
        assert other.stdout.readline() == "mine\n"
        began = time.monotonic()
        with pytest.raises(UserError, match=rf"'a'.*process {other.pid};"), ledger.own("a"):
            pass
        assert time.monotonic() - began < 1.0
        with ledger.own("b"):
            pass
        os.kill(other.pid, signal.SIGKILL)
        other.wait()
        with (
            ledger.own("a"),
            pytest.raises(UserError, match=f"process {os.getpid()};"),
            ledger.own("a"),
        ):
            pass
        with pytest.raises(UserError, match="no audit id"), ledger.own("../a"):
            pass


WRITER = """
import sys
from pathlib import Path
from dragoman.agent.ledger import Ledger
path, name = Path(sys.argv[1]), sys.argv[2]
with Ledger(path) as ledger:
    for number in range(100_000):
        ledger.put(name, "claim", str(number), {"n": number, "pad": "x" * 500})
        print(number, flush=True)
"""


def test_kill_9_in_the_middle_loses_nothing_that_was_acknowledged(path: Path) -> None:
    torn = 0
    for name, lines in (("a", 7), ("b", 23), ("c", 61)):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), name], stdout=subprocess.PIPE, text=True
        ) as writer:
            assert writer.stdout is not None
            acknowledged = [int(writer.stdout.readline()) for _ in range(lines)]
            os.kill(writer.pid, signal.SIGKILL)
            acknowledged += [int(line) for line in writer.stdout.read().splitlines()]
            writer.wait()
        with Ledger(path) as ledger:
            kept = [entry["n"] for entry in ledger.entries(name, "claim")]
            assert kept == list(range(len(kept))), "a prefix, in order"
            assert len(kept) >= len(acknowledged)
            torn += len(kept) - len(acknowledged)
            ledger.put(name, "claim", "0", {"n": 0, "pad": "x" * 500})
            assert ledger.verify() >= len(kept)
    assert torn <= 3, "at most the row in flight is more than was acknowledged"


def test_writers_of_several_processes_and_threads_take_turns(path: Path) -> None:
    script = WRITER.replace("100_000", "40")
    with Ledger(path) as ledger:

        def start_20() -> None:
            for _ in range(20):
                ledger.experiment_started("t", EXPERIMENT)

        others = [
            subprocess.Popen(
                [sys.executable, "-c", script, str(path), name], stdout=subprocess.DEVNULL
            )
            for name in ("p", "q")
        ]
        threads = [threading.Thread(target=start_20) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [other.wait() for other in others] == [0, 0]
        assert ledger.attempts("t", EXPERIMENT.id) == 40
        assert ledger.verify() == 120


def spoiled(path: Path, offset: int, data: bytes) -> None:
    content = bytearray(path.read_bytes())
    content[offset : offset + len(data)] = data
    path.write_bytes(content)


def filled(path: Path) -> None:
    with Ledger(path) as ledger:
        for number in range(50):
            ledger.put("a", "claim", str(number), {"word": "needle", "pad": "x" * 300})


def test_a_flipped_letter_is_noticed_when_it_is_read(path: Path) -> None:
    filled(path)
    spoiled(path, path.read_bytes().rindex(b"needle"), b"noodle")
    with Ledger(path) as ledger:
        with pytest.raises(IntegrityError, match=r"digest.*backup"):
            ledger.entries("a", "claim")
        with pytest.raises(IntegrityError, match="digest"):
            ledger.verify()


@pytest.mark.parametrize("how", ["empty", "truncated", "zeroed page", "garbage", "text"])
def test_a_damaged_file_is_refused_in_words(path: Path, how: str) -> None:
    filled(path)
    size = path.stat().st_size
    if how == "empty":
        path.write_bytes(b"")
    elif how == "truncated":
        os.truncate(path, size // 2)
    elif how == "zeroed page":
        spoiled(path, 4096, bytes(4096))
    elif how == "garbage":
        path.write_bytes(os.urandom(size))
    else:
        path.write_text("my shopping list")
    with pytest.raises(IntegrityError, match=r"is damaged \(.*\); move it"):
        Ledger(path)


def test_another_programs_file_and_a_newer_one_are_refused_untouched(path: Path) -> None:
    path.parent.mkdir()
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE t (x)")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(IntegrityError, match="not a ledger of this program"):
        Ledger(path)
    assert path.read_bytes() == before
    path.unlink()
    Ledger(path).close()
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    connection.close()
    with pytest.raises(IntegrityError, match=r"newer version.*upgrade"):
        Ledger(path)


def test_a_log_without_its_ledger_is_no_new_beginning(path: Path) -> None:
    filled(path)
    path.with_name(f"{path.name}-wal").write_bytes(b"left over")
    path.unlink()
    with pytest.raises(IntegrityError, match="without it"):
        Ledger(path)


def test_a_full_disk_is_a_clear_stop_and_the_file_stays_whole(path: Path) -> None:
    with Ledger(path) as ledger:
        ledger.put("a", "claim", "one", {"x": 1})
        (pages,) = ledger._file._connection.execute("PRAGMA page_count").fetchone()
        ledger._file._connection.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(UserError, match="disk is full; free some space"):
            ledger.put("a", "claim", "two", {"x": "x" * 100_000})
        ledger._file._connection.execute("PRAGMA max_page_count = 100000")
        ledger.put("a", "claim", "two", {"x": 2})
        assert ledger.entries("a", "claim") == [{"x": 1}, {"x": 2}]
        assert ledger.verify() == 2


def test_a_folder_that_cannot_be_made_is_the_persons_to_mend(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("a file")
    with pytest.raises(UserError, match="cannot be used"):
        Ledger(tmp_path / "home" / "ledger.sqlite3")
