"""The batch engine: rows whole or absent, and a run that goes on as if nothing had happened."""

import os
import resource
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from dragoman.core.errors import IntegrityError, Interrupted, UserError
from dragoman.core.records import JsonObject
from dragoman.tools.captioning import batch
from dragoman.tools.captioning.batch import BatchSettings, Group, Pace, run
from dragoman.tools.captioning.rows import UnitCaption, row_of_entry

GROUPS = [Group(tuple(f"1.{unit}" for unit in range(start, start + 4))) for start in (0, 4, 8)]
N_UNITS = 12


def settings(**changed: Any) -> BatchSettings:
    base = {
        "subject": "fake",
        "subject_digest": "d" * 64,
        "units": ("mlp.1: 0-11",),
        "units_digest": "u",
        "corpus": "nothing",
        "corpus_digest": "c",
        "effort": "quick",
        "seed": 0,
        "code": "v1",
    }
    return BatchSettings(**{**base, **changed})


def row(name: str) -> UnitCaption:
    layer, unit = (int(part) for part in name.split("."))
    entry: JsonObject = {
        "unit": name,
        "caption": f"things like {unit}",
        "density": 0.01,
        "note": "x" * 300,
    }
    return row_of_entry("mlp", layer, unit, entry, (), ())


def describe(group: int, wanted: Sequence[str]) -> Iterator[UnitCaption]:
    assert set(wanted) <= set(GROUPS[group].names)
    for name in wanted:
        yield row(name)


def interrupted_after(n: int) -> batch.Describe:
    left = n

    def describing(group: int, wanted: Sequence[str]) -> Iterator[UnitCaption]:
        nonlocal left
        for each in describe(group, wanted):
            if left == 0:
                raise Interrupted("stopped on request")
            left -= 1
            yield each

    return describing


def go(folder: Path, describing: batch.Describe = describe, **options: Any) -> list[Pace]:
    paces: list[Pace] = []
    chosen = options.pop("settings", settings())
    run(
        folder,
        chosen,
        GROUPS,
        describing,
        resume=options.pop("resume", False),
        on_pace=paces.append,
    )
    return paces


def content(folder: Path) -> bytes:
    return (folder / batch.ROWS_FILE).read_bytes()


@pytest.fixture
def whole(tmp_path: Path) -> bytes:
    go(tmp_path / "whole")
    return content(tmp_path / "whole")


def test_every_unit_gets_its_row_in_the_order_of_the_request(tmp_path: Path) -> None:
    paces = go(tmp_path)
    names = [each.name for each in batch.read_rows(tmp_path)]
    assert names == [name for group in GROUPS for name in group.names]
    assert [pace.done for pace in paces] == list(range(N_UNITS + 1))
    assert paces[-1].seconds_left == 0
    assert paces[0].seconds_left is None


@pytest.mark.parametrize("n", [0, 1, 4, 6, 11])
def test_an_interrupted_run_leaves_the_same_file(tmp_path: Path, whole: bytes, n: int) -> None:
    with pytest.raises(Interrupted):
        go(tmp_path / "run", interrupted_after(n))
    assert content(tmp_path / "run").count(b"\n") == n
    paces = go(tmp_path / "run", resume=True)
    assert content(tmp_path / "run") == whole
    assert (paces[0].done, paces[-1].done, paces[-1].new) == (n, N_UNITS, N_UNITS - n)


def test_a_finished_run_is_not_captioned_again(tmp_path: Path, whole: bytes) -> None:
    def never(group: int, wanted: Sequence[str]) -> Iterator[UnitCaption]:
        raise AssertionError("a finished unit was captioned again")
        yield

    go(tmp_path / "whole", never, resume=True)
    assert content(tmp_path / "whole") == whole


@pytest.mark.parametrize("cut", [1, 7, 200])
def test_a_torn_row_is_cut_off_and_made_again(tmp_path: Path, whole: bytes, cut: int) -> None:
    path = tmp_path / "whole" / batch.ROWS_FILE
    path.write_bytes(whole[:-cut])
    go(tmp_path / "whole", resume=True)
    assert path.read_bytes() == whole


def test_a_damaged_row_is_named_and_its_unit_done_again(tmp_path: Path, whole: bytes) -> None:
    path = tmp_path / "whole" / batch.ROWS_FILE
    lines = whole.splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:2], b'{"name": 3}\n', *lines[3:]]))
    with pytest.raises(IntegrityError, match=r"line 3: .*delete the line"):
        go(tmp_path / "whole", resume=True)
    path.write_bytes(b"".join([*lines[:2], *lines[3:]]))
    go(tmp_path / "whole", resume=True)
    assert path.read_bytes() == whole


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"seed": 1}, "seed 0 and not 1"),
        ({"chat": "qwen"}, "chat model none and not qwen"),
        ({"corpus_digest": "other"}, "another corpus"),
        ({"subject_digest": "e" * 64}, "another weights of the subject"),
        ({"units_digest": "v"}, "another units"),
        ({"code": "v2"}, "another version of Dragoman"),
        ({"pmi": False}, "pointwise mutual information True and not False"),
    ],
)
def test_other_settings_are_refused(
    tmp_path: Path, whole: bytes, changed: dict[str, Any], told: str
) -> None:
    with pytest.raises(UserError, match=told) as refused:
        go(tmp_path / "whole", settings=settings(**changed), resume=True)
    assert "\n" not in str(refused.value)
    assert content(tmp_path / "whole") == whole


def test_a_run_is_neither_started_twice_nor_resumed_from_nothing(
    tmp_path: Path, whole: bytes
) -> None:
    with pytest.raises(UserError, match="--resume goes on"):
        go(tmp_path / "whole")
    with pytest.raises(UserError, match="no caption run to resume"):
        go(tmp_path / "nowhere", resume=True)
    stray = tmp_path / "stray"
    stray.mkdir()
    (stray / batch.ROWS_FILE).write_text("mine\n")
    with pytest.raises(UserError, match="of another origin"):
        go(stray)
    assert (stray / batch.ROWS_FILE).read_text() == "mine\n"


def test_two_processes_do_not_share_a_folder(tmp_path: Path) -> None:
    def nested(group: int, wanted: Sequence[str]) -> Iterator[UnitCaption]:
        with pytest.raises(UserError, match="another process"):
            go(tmp_path, resume=True)
        yield from describe(group, wanted)

    go(tmp_path, nested)


CHILD = textwrap.dedent(
    """
    import importlib.util, sys, time
    from pathlib import Path
    spec = importlib.util.spec_from_file_location("fakes", sys.argv[1])
    fakes = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fakes)

    def slowly(group, wanted):
        for each in fakes.describe(group, wanted):
            time.sleep(0.05)
            yield each

    try:
        fakes.go(Path(sys.argv[2]), slowly)
    except Exception as error:
        print(type(error).__name__, error)
    """
)


def child(folder: Path, **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, __file__, str(folder)],
        stdout=subprocess.PIPE,
        text=True,
        **options,
    )


def test_a_kill_loses_at_most_the_row_in_hand(tmp_path: Path, whole: bytes) -> None:
    folder = tmp_path / "killed"
    running = child(folder)
    rows = folder / batch.ROWS_FILE
    deadline = time.monotonic() + 60
    while not (rows.exists() and rows.read_bytes().count(b"\n") >= 3):
        assert time.monotonic() < deadline
        assert running.poll() is None
        time.sleep(0.01)
    os.kill(running.pid, signal.SIGKILL)
    running.communicate()
    kept = rows.read_bytes()
    assert whole.startswith(kept[: kept.rindex(b"\n") + 1])
    go(folder, resume=True)
    assert content(folder) == whole


def test_a_full_disk_keeps_whole_rows_and_is_one_clear_error(tmp_path: Path, whole: bytes) -> None:
    folder = tmp_path / "full"
    limit = len(whole) // 2 + 17  # in the middle of a row
    running = child(
        folder, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    )
    said, _ = running.communicate(timeout=60)
    assert said.startswith("UserError")
    assert "the disk is full" in said
    assert "--resume" in said
    kept = content(folder)
    assert kept.endswith(b"\n")
    assert whole.startswith(kept)
    assert len(whole) // 2 - 1000 < len(kept) <= limit
    go(folder, resume=True)
    assert content(folder) == whole
