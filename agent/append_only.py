"""One append-only SQLite file: rows are added and read, never changed or removed.

Each row carries the sha256 of what it says, so that a flipped bit is noticed when it is read.
Writers of all processes take turns through a lock file: SQLite before 3.51.3 can lose a write when
one connection resets the write-ahead log while another appends to it.
"""

import hashlib
import json
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from filelock import FileLock

from dragoman.core.errors import DragomanError, IntegrityError, UserError
from dragoman.core.escaping import well_formed
from dragoman.core.files import atomic_path
from dragoman.core.records import JsonObject, canonical_json

APPLICATION_ID = 0x44524147
"""'DRAG': tells our file from another program's."""
SCHEMA_VERSION = 1

_SCHEMA = f"""
CREATE TABLE rows (
    seq INTEGER PRIMARY KEY,
    audit_id TEXT NOT NULL,
    kind TEXT NOT NULL,
    key TEXT NOT NULL,
    body TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    UNIQUE (audit_id, kind, key)
);
CREATE INDEX rows_by_kind ON rows (kind, key);
CREATE TRIGGER rows_never_change BEFORE UPDATE ON rows
    BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
CREATE TRIGGER rows_never_leave BEFORE DELETE ON rows
    BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
-- REPLACE removes rows without asking the trigger above.
CREATE TRIGGER rows_never_give_way BEFORE INSERT ON rows
    WHEN EXISTS (
        SELECT 1 FROM rows WHERE seq = NEW.seq
        OR (audit_id = NEW.audit_id AND kind = NEW.kind AND key = NEW.key)
    )
    BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {SCHEMA_VERSION};
"""
_COLUMNS = "seq, audit_id, kind, key, body, sha256"


class Row(NamedTuple):
    """One entry as it was written."""

    seq: int
    audit_id: str
    kind: str
    key: str
    text: str
    """Canonical JSON."""

    @property
    def body(self) -> JsonObject:
        """What the row says."""
        parsed: JsonObject = json.loads(self.text)
        return parsed


class AppendOnlyFile:
    """Rows named by (audit, kind, key), in the order in which they were written."""

    def __init__(self, path: Path) -> None:
        """Open or make the file; `IntegrityError` when it is damaged, foreign or newer."""
        self.path = path
        self._mutex = threading.RLock()
        self.locks_folder = path.parent / "locks"
        self._turn = FileLock(
            self.locks_folder / f"{path.name}.lock", thread_local=False, poll_interval=0.005
        )
        with self._faults():
            self.locks_folder.mkdir(parents=True, exist_ok=True)
            with self._turn:
                if not path.exists():
                    self._create()
                self._connection = self._open()

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
        with self._mutex, self._turn:
            self._connection.close()

    def append(
        self, audit_id: str, kind: str, key: str | Callable[[], str], body: JsonObject
    ) -> None:
        """Add a row; the same row again changes nothing, another body is an `IntegrityError`.

        A callable `key` is asked while no other process can write, so that it may count rows.
        """
        text = well_formed(canonical_json(body))
        with self._writing():
            name = well_formed(key if isinstance(key, str) else key())
            present = self.rows(kind, audit_id=audit_id, key=name)
            if present:
                if present[0].text == text:
                    return
                raise IntegrityError(
                    f"{self.path}: {kind} {name!r} of audit {audit_id!r} is already recorded with "
                    "another content; start a new audit"
                )
            (last,) = self._connection.execute("SELECT coalesce(max(seq), 0) FROM rows").fetchone()
            seq = last + 1
            digest = _digest(seq, audit_id, kind, name, text)
            self._connection.execute(
                f"INSERT INTO rows ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?)",
                (seq, audit_id, kind, name, text, digest),
            )

    def rows(self, kind: str, *, audit_id: str | None = None, key: str | None = None) -> list[Row]:
        """Rows of a kind in the order of writing, of one audit or one key if given."""
        clauses, values = ["kind = ?"], [kind]
        for column, value in (("audit_id", audit_id), ("key", key)):
            if value is not None:
                clauses.append(f"{column} = ?")
                values.append(well_formed(value))
        query = f"SELECT {_COLUMNS} FROM rows WHERE {' AND '.join(clauses)} ORDER BY seq"
        return self._select(query, values)

    def attempts(self, kind: str, name: str, *, audit_id: str | None = None) -> list[Row]:
        """Rows whose key `next_key` made from `name`, in the order of writing."""
        # '$' follows '#': the range holds the keys that begin with "name#".
        where, values = "kind = ? AND key > ? AND key < ?", [kind, f"{name}#", f"{name}$"]
        if audit_id is not None:
            where, values = f"{where} AND audit_id = ?", [*values, audit_id]
        return self._select(f"SELECT {_COLUMNS} FROM rows WHERE {where} ORDER BY seq", values)

    def next_key(self, audit_id: str, kind: str, name: str) -> Callable[[], str]:
        """For `append`: "name#1", "name#2", … in one audit, whoever writes."""
        return lambda: f"{name}#{len(self.attempts(kind, name, audit_id=audit_id)) + 1}"

    def verify(self) -> int:
        """Read every row against its digest; returns how many there are."""
        count = len(self._select(f"SELECT {_COLUMNS} FROM rows ORDER BY seq", []))
        with self._mutex, self._faults():
            (last,) = self._connection.execute("SELECT coalesce(max(seq), 0) FROM rows").fetchone()
        if last != count:
            raise self._damaged(f"{last - count} rows are missing")
        return count

    def _select(self, query: str, values: Sequence[str]) -> list[Row]:
        with self._mutex, self._faults():
            found = self._connection.execute(query, values).fetchall()
        return [self._checked(*row) for row in found]

    def _checked(self, seq: int, audit_id: str, kind: str, key: str, body: str, sha256: str) -> Row:
        if _digest(seq, audit_id, kind, key, body) != sha256:
            raise self._damaged(f"row {seq} does not match its digest")
        return Row(seq, audit_id, kind, key, body)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        with self._mutex, self._turn, self._faults():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):  # a full disk has rolled back by itself
                    self._connection.execute("ROLLBACK")
                raise

    def _create(self) -> None:
        log = self.path.with_name(f"{self.path.name}-wal")
        if log.exists() and log.stat().st_size > 0:
            raise self._damaged(f"{log.name} lies there without it")
        with atomic_path(self.path) as temporary:
            connection = sqlite3.connect(temporary, isolation_level=None)
            try:
                connection.execute("PRAGMA journal_mode = WAL")
                connection.executescript(_SCHEMA)
            finally:
                connection.close()

    def _open(self) -> sqlite3.Connection:
        if self.path.stat().st_size == 0:
            raise self._damaged("it is empty")
        connection = sqlite3.connect(
            self.path, isolation_level=None, check_same_thread=False, timeout=30.0
        )
        try:
            self._check(connection)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
        except BaseException:
            connection.close()
            raise
        return connection

    def _check(self, connection: sqlite3.Connection) -> None:
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if application != APPLICATION_ID:
            raise IntegrityError(
                f"{self.path} is not a ledger of this program; move it away or set DRAGOMAN_HOME"
            )
        if version > SCHEMA_VERSION:
            raise IntegrityError(
                f"{self.path} was written by a newer version (schema {version}, this one reads "
                f"{SCHEMA_VERSION}); upgrade, or set DRAGOMAN_HOME to another folder"
            )
        (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise self._damaged(verdict)

    def _damaged(self, why: str) -> IntegrityError:
        return IntegrityError(
            f"{self.path} is damaged ({' '.join(why.split())}); move it and its -wal file away, or "
            "put a backup in its place"
        )

    @contextmanager
    def _faults(self) -> Iterator[None]:
        """SQLite's errors in the words of somebody who can do something about them."""
        try:
            yield
        except DragomanError:
            raise
        except (sqlite3.OperationalError, OSError) as error:
            text = str(error)
            if "full" in text or "No space" in text:
                raise UserError(
                    f"{self.path}: the disk is full; free some space and resume"
                ) from error
            if "malformed" in text or "not a database" in text:
                raise self._damaged(text) from error
            raise UserError(f"{self.path} cannot be used: {text}") from error
        except sqlite3.DatabaseError as error:
            raise self._damaged(str(error)) from error


def _digest(seq: int, audit_id: str, kind: str, key: str, body: str) -> str:
    spelled = json.dumps([seq, audit_id, kind, key, body])
    return hashlib.sha256(spelled.encode()).hexdigest()
