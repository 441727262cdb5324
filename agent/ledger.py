"""The ledger: the one truth about audits, experiments, chat calls and findings.

Checkpoints, the vector memory and reports are derived from it. Every entry is idempotent by its
key, so that work repeated after a crash leaves no second trace; money is written down as reserved
before it is spent, and a call of which no reply was recorded counts at its reserve.
"""

import os
import re
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from filelock import FileLock, Timeout

from dragoman.agent.append_only import AppendOnlyFile
from dragoman.core.claims import Finding
from dragoman.core.errors import IntegrityError, UserError
from dragoman.core.protocols import ChatReply, ChatRequest
from dragoman.core.records import Experiment, JsonObject, Record, ToolResult
from dragoman.core.report import ToolCost

FINDING = "finding"
_AUDIT_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")
# Kinds with a dot are the ledger's own; `put` refuses them.
_STARTED, _FINISHED = "audit.started", "audit.finished"
_TRIED, _RESULT = "experiment.started", "experiment.finished"
_RESERVED, _SETTLED, _RELEASED = "chat.reserved", "chat.settled", "chat.released"
_CLOCK = "session.seconds"


class _Ending(Record):
    outcome: str
    reason: str
    finished: str


class _Result(Record):
    result: ToolResult
    seconds: float


class _Reserve(Record):
    request: ChatRequest
    prompt_tokens: int
    completion_tokens: int
    usd: float | None


class _Settled(Record):
    attempt: str
    reply: ChatReply


class _Seconds(Record):
    seconds: float


class AuditRow(Record):
    """An audit as `audits()` lists it; `outcome` is None while it is open."""

    audit_id: str
    specification: JsonObject
    started: str
    outcome: str | None = None
    reason: str = ""
    finished: str | None = None


class Spent(Record):
    """What the chat calls of an audit took; in-doubt calls count at their reserve."""

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    usd: float | None = 0.0
    """None where a call's price is not known."""
    in_doubt: int = 0
    """Calls that were sent and of which no reply was recorded."""

    @property
    def tokens(self) -> int:
        """Prompt and completion together."""
        return self.prompt_tokens + self.completion_tokens


class Ledger:
    """Append-only record of every audit; one file, any number of readers and writers."""

    def __init__(self, path: Path) -> None:
        """Open or make the ledger; `IntegrityError` when it is damaged, foreign or newer."""
        self.path = path
        self._file = AppendOnlyFile(path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; safe to call twice."""
        self._file.close()

    def verify(self) -> int:
        """Check every entry against its digest; returns their number."""
        return self._file.verify()

    # audits

    def start_audit(self, audit_id: str, specification: JsonObject, started: str) -> None:
        """Record that an audit exists; `started` is ISO 8601, UTC."""
        _check_audit_id(audit_id)
        self._file.append(
            audit_id, _STARTED, "", {"specification": specification, "started": started}
        )

    def finish_audit(self, audit_id: str, outcome: str, reason: str, finished: str) -> None:
        """Record an ending; of several (interrupted, later done) the last one counts."""
        ending = _plain(_Ending(outcome=outcome, reason=reason, finished=finished))
        known = self._file.rows(_FINISHED, audit_id=audit_id)
        if not known or known[-1].body != ending:
            key = self._file.next_key(audit_id, _FINISHED, "ending")
            self._file.append(audit_id, _FINISHED, key, ending)

    def audits(self) -> list[AuditRow]:
        """Every audit, oldest first."""
        endings = {row.audit_id: row.body for row in self._file.rows(_FINISHED)}
        return [
            AuditRow.model_validate(
                {"audit_id": row.audit_id, **row.body, **endings.get(row.audit_id, {})}
            )
            for row in self._file.rows(_STARTED)
        ]

    def audit(self, audit_id: str) -> AuditRow:
        """One audit; `UserError` where there is none of this name."""
        for row in self.audits():
            if row.audit_id == audit_id:
                return row
        raise UserError(
            f"there is no audit {audit_id!r}; `dragoman report list` shows those that there are"
        )

    @contextmanager
    def own(self, audit_id: str) -> Iterator[None]:
        """Be the only process that works on an audit; `UserError` names the one that does."""
        _check_audit_id(audit_id)
        lock = FileLock(self._file.locks_folder / f"{audit_id}.lock", thread_local=False)
        owner = self._file.locks_folder / f"{audit_id}.owner"
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise UserError(
                f"audit {audit_id!r} is being worked on by process {_owner(owner)}; wait for it "
                "or stop it first"
            ) from None
        try:
            owner.write_text(str(os.getpid()))
            yield
        finally:
            owner.unlink(missing_ok=True)
            lock.release()

    # what the graph's steps leave behind

    def put(self, audit_id: str, kind: str, key: str, body: Record | JsonObject) -> None:
        """Record `body`; again the same is no change, another body is an `IntegrityError`."""
        if "." in kind:
            raise ValueError(f"kind {kind!r}: a dot marks the ledger's own kinds")
        self._file.append(audit_id, kind, key, _plain(body))

    def get(self, audit_id: str, kind: str, key: str) -> JsonObject | None:
        """What was recorded under this key, if anything."""
        rows = self._file.rows(kind, audit_id=audit_id, key=key)
        return rows[0].body if rows else None

    def entries(self, audit_id: str, kind: str) -> list[JsonObject]:
        """All of a kind in one audit, in the order of writing."""
        return [row.body for row in self._file.rows(kind, audit_id=audit_id)]

    def findings(self) -> list[Finding]:
        """Every finding of every audit, oldest first, each id once."""
        found: dict[str, Finding] = {}
        for row in self._file.rows(FINDING):
            finding = Finding.model_validate(row.body)
            found.setdefault(finding.id, finding)
        return list(found.values())

    # experiments

    def experiment_started(self, audit_id: str, experiment: Experiment) -> None:
        """Record an attempt, before it is made."""
        key = self._file.next_key(audit_id, _TRIED, experiment.id)
        self._file.append(audit_id, _TRIED, key, _plain(experiment))

    def experiment_finished(self, audit_id: str, result: ToolResult, seconds: float) -> None:
        """Record a result; the same result again is recorded once."""
        known = self._file.attempts(_RESULT, result.experiment_id, audit_id=audit_id)
        if known and known[-1].body["result"] == _plain(result):
            return
        key = self._file.next_key(audit_id, _RESULT, result.experiment_id)
        self._file.append(audit_id, _RESULT, key, _plain(_Result(result=result, seconds=seconds)))

    def result(self, experiment_id: str, audit_id: str | None = None) -> ToolResult | None:
        """The newest good result of any audit, else the newest failed one of `audit_id`, else None.

        A failure is not carried into other audits: there, the experiment deserves a new try.
        """
        failed: ToolResult | None = None
        for row in reversed(self._file.attempts(_RESULT, experiment_id)):
            result = _Result.model_validate(row.body).result
            if result.status == "ok":
                return result
            if failed is None and row.audit_id == audit_id:
                failed = result
        return failed

    def attempts(self, audit_id: str, experiment_id: str) -> int:
        """How often an experiment was begun in this audit."""
        return len(self._file.attempts(_TRIED, experiment_id, audit_id=audit_id))

    def steps(self, audit_id: str) -> frozenset[str]:
        """Ids of the experiments that this audit has begun, however often each was tried."""
        rows = self._file.rows(_TRIED, audit_id=audit_id)
        return frozenset(row.key.rpartition("#")[0] for row in rows)

    def seconds(self, audit_id: str) -> tuple[ToolCost, ...]:
        """Calls and time per tool, by name."""
        calls: Counter[str] = Counter()
        seconds: defaultdict[str, float] = defaultdict(float)
        for row in self._file.rows(_RESULT, audit_id=audit_id):
            finished = _Result.model_validate(row.body)
            calls[finished.result.experiment.tool] += 1
            seconds[finished.result.experiment.tool] += finished.seconds
        return tuple(
            ToolCost(tool=tool, calls=calls[tool], seconds=seconds[tool]) for tool in sorted(calls)
        )

    # chat calls

    def chat_reserved(
        self,
        audit_id: str,
        call_id: str,
        request: ChatRequest,
        prompt_tokens_max: int,
        completion_tokens_max: int,
        usd_max: float | None,
    ) -> None:
        """Record, before a call is sent, the most that it can cost."""
        if self.chat_reply(audit_id, call_id) is not None:
            raise IntegrityError(f"chat call {call_id} has its reply already; replay it")
        reserve = _Reserve(
            request=request,
            prompt_tokens=prompt_tokens_max,
            completion_tokens=completion_tokens_max,
            usd=usd_max,
        )
        key = self._file.next_key(audit_id, _RESERVED, call_id)
        self._file.append(audit_id, _RESERVED, key, _plain(reserve))

    def chat_settled(self, audit_id: str, call_id: str, reply: ChatReply) -> None:
        """Record the reply to the latest attempt: what it took replaces what was reserved."""
        settled = _Settled(attempt=self._last_attempt(audit_id, call_id), reply=reply)
        self._file.append(audit_id, _SETTLED, call_id, _plain(settled))

    def chat_released(self, audit_id: str, call_id: str, reason: str) -> None:
        """Record that the latest attempt was refused before it could cost anything."""
        attempt = self._last_attempt(audit_id, call_id)
        self._file.append(audit_id, _RELEASED, attempt, {"reason": reason})

    def chat_reply(self, audit_id: str, call_id: str) -> ChatReply | None:
        """The recorded reply to a call, if it was answered."""
        settled = self.get(audit_id, _SETTLED, call_id)
        return None if settled is None else _Settled.model_validate(settled).reply

    def spent(self, audit_id: str) -> Spent:
        """What the chat calls of an audit took, or may have taken."""
        settled = [
            _Settled.model_validate(row.body)
            for row in self._file.rows(_SETTLED, audit_id=audit_id)
        ]
        answered = {one.attempt for one in settled}
        released = {row.key for row in self._file.rows(_RELEASED, audit_id=audit_id)}
        in_doubt = [
            _Reserve.model_validate(row.body)
            for row in self._file.rows(_RESERVED, audit_id=audit_id)
            if row.key not in answered | released
        ]
        charged: list[ChatReply | _Reserve] = [*(one.reply for one in settled), *in_doubt]
        prices = [one.usd for one in charged]
        return Spent(
            calls=len(charged),
            prompt_tokens=sum(one.prompt_tokens for one in charged),
            completion_tokens=sum(one.completion_tokens for one in charged),
            usd=None if None in prices else sum(price or 0.0 for price in prices),
            in_doubt=len(in_doubt),
        )

    def _last_attempt(self, audit_id: str, call_id: str) -> str:
        reserved = self._file.attempts(_RESERVED, call_id, audit_id=audit_id)
        if not reserved:
            raise ValueError(f"chat call {call_id} was never reserved")
        return reserved[-1].key

    # time

    def clock(self, audit_id: str, session: str, seconds: float) -> None:
        """Record how long a session of an audit has been at work by now."""
        key = self._file.next_key(audit_id, _CLOCK, session)
        self._file.append(audit_id, _CLOCK, key, _plain(_Seconds(seconds=seconds)))

    def seconds_used(self, audit_id: str) -> float:
        """Time at work over all sessions of an audit, as far as it was recorded."""
        longest: defaultdict[str, float] = defaultdict(float)
        for row in self._file.rows(_CLOCK, audit_id=audit_id):
            session = row.key.rpartition("#")[0]
            seconds = _Seconds.model_validate(row.body).seconds
            longest[session] = max(seconds, longest[session])
        return sum(longest.values())


def _plain(body: Record | JsonObject) -> JsonObject:
    return body.model_dump(mode="json") if isinstance(body, Record) else body


def _check_audit_id(audit_id: str) -> None:
    if not _AUDIT_ID.fullmatch(audit_id):
        raise UserError(
            f"{audit_id!r} is no audit id; use letters, digits, '-' and '_', 100 at most"
        )


def _owner(path: Path) -> str:
    """The PID that the owner of a lock wrote down; it does so right after taking the lock."""
    for _ in range(20):
        with suppress(FileNotFoundError):
            if text := path.read_text().strip():
                return text
        time.sleep(0.025)
    return "unknown"
