"""Lines of a jsonl file: read once each, cut or foreign ones told apart."""

from collections.abc import Callable, Hashable
from functools import partial
from pathlib import Path

import pytest

from dragoman.evals.rows import EvalRow, append, complete, read_rows


class Done(EvalRow):
    """A piece of work."""

    name: str
    value: int

    @property
    def key(self) -> str:
        return self.name

    @property
    def told(self) -> str:
        return f"{self.name}\x1b is {self.value}"


def _read(path: Path) -> list[Done]:
    return read_rows(path, Done)


def test_the_latest_row_of_each_key_in_the_order_of_the_first(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "rows.jsonl"
    assert _read(path) == []
    rows = [Done(name="a", value=1), Done(name="b", value=2), Done(name="a", value=3)]
    for row in rows:
        append(path, row)
    assert _read(path) == [rows[2], rows[1]]


def test_a_last_line_that_was_cut_off_is_left_out_and_written_over(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    first, second = Done(name="a", value=1), Done(name="b", value=2)
    append(path, first)
    for cut in range(1, len(second.model_dump_json())):
        with path.open("a") as opened:
            opened.write(second.model_dump_json()[:cut])
        assert _read(path) == [first]
        append(path, first)
        assert _read(path) == [first]


def test_a_line_of_another_kind_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"name": "a", "value": 1}\n{"name": "b"}\n{"name": "c", "value": 3}\n')
    with pytest.raises(ValueError, match=r"rows\.jsonl: line 2 is no row"):
        _read(path)


def test_marks_that_end_a_line_elsewhere_end_no_row(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [Done(name="a\u2028b\x85c", value=1), Done(name="d", value=2)]
    path.write_text("".join(f"{row.model_dump_json()}\n" for row in rows), encoding="utf-8")
    assert _read(path) == rows


def test_what_is_missing_is_made_and_kept_and_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "rows.jsonl"
    made: list[str] = []

    def make(name: str) -> Done:
        made.append(name)
        return Done(name=name, value=len(made))

    wanted: dict[Hashable, Callable[[], Done]] = {name: partial(make, name) for name in "abcd"}
    append(path, Done(name="b", value=0))
    assert complete(wanted, _read(path), path, table_only=True) == [Done(name="b", value=0)]
    first = complete(wanted, _read(path), path, at_most=1)
    assert (made, [row.name for row in first]) == (["a"], ["a", "b"])
    # A stop in the middle loses no row but the one in the making.
    stopping: dict[Hashable, Callable[[], Done]] = {**wanted, "d": partial(pytest.fail, "stopped")}
    with pytest.raises(pytest.fail.Exception):
        complete(stopping, _read(path), path)
    every = complete(wanted, _read(path), path)
    assert [row.name for row in every] == ["a", "b", "c", "d"]
    assert made == ["a", "c", "d"]
    assert "1 of 2: c\\x1b is 2\n" in capsys.readouterr().err
