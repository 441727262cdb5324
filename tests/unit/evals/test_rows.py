"""Lines of a jsonl file: read once each, cut or foreign ones told apart."""

from pathlib import Path

import pytest

from dragoman.core.records import Record
from dragoman.evals.rows import append_line, read_lines


class Done(Record):
    """A piece of work."""

    name: str
    value: int


def _read(path: Path) -> list[Done]:
    return read_lines(path, Done, lambda row: row.name)


def test_the_latest_row_of_each_key_in_the_order_of_the_first(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "rows.jsonl"
    assert _read(path) == []
    rows = [Done(name="a", value=1), Done(name="b", value=2), Done(name="a", value=3)]
    for row in rows:
        append_line(path, row.model_dump_json())
    assert _read(path) == [rows[2], rows[1]]


def test_a_last_line_that_was_cut_off_is_left_out_and_written_over(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    first, second = Done(name="a", value=1), Done(name="b", value=2)
    append_line(path, first.model_dump_json())
    for cut in range(1, len(second.model_dump_json())):
        with path.open("a") as opened:
            opened.write(second.model_dump_json()[:cut])
        assert _read(path) == [first]
        append_line(path, first.model_dump_json())
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
