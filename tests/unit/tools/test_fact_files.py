"""A person's facts: what is read, and how a bad row is named."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dragoman.core.errors import ToolError
from dragoman.tools.fact_files import read_fact_file
from dragoman.tools.relations import load_relation

PROMPT = "The mascot of {} is the"
GOOD = [{"entity": f"club {at}", "object": f"beast {at % 3}", "prompt": PROMPT} for at in range(9)]


def _jsonl(path: Path, rows: list[object]) -> Path:
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path


def test_json_lines_and_parquet_hold_the_same_facts(tmp_path: Path) -> None:
    first = read_fact_file(_jsonl(tmp_path / "a.jsonl", [*GOOD]))
    pq.write_table(pa.Table.from_pylist(GOOD), tmp_path / "a.parquet")
    assert read_fact_file(tmp_path / "a.parquet") == first
    assert [row.entity for row in first] == [row["entity"] for row in GOOD]


def test_a_fact_file_is_a_relation_of_its_own(tmp_path: Path) -> None:
    relation = load_relation(str(_jsonl(tmp_path / "mascots.jsonl", [*GOOD])))
    assert relation.name == "mascots"
    assert relation.prompt_templates == (PROMPT,)
    assert len(relation.samples) == 9


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ("{not json", "line 2: is no JSON object"),
        ("[1]", "line 2: is no JSON object"),
        ({"entity": "x"}, "line 2: 'object' is missing"),
        ({"entity": "", "object": "y"}, "line 2: 'entity' is empty"),
        ({"entity": 3, "object": "y"}, "line 2: 'entity' must be a string"),
        ({"entity": "x", "object": "y", "mood": "z"}, "line 2: 'mood' is no column"),
        ({"entity": "x", "object": "y", "prompt": "no hole"}, "exactly one {} for the entity"),
        ({"entity": "x\u001b[2J", "object": "y"}, "line 2: 'entity' holds a control"),
        ({"entity": "x" * 401, "object": "y"}, "longer than 400 characters"),
    ],
)
def test_every_bad_line_is_named_with_its_fault(tmp_path: Path, row: object, told: str) -> None:
    path = _jsonl(tmp_path / "a.jsonl", [GOOD[0], row, GOOD[1], {"object": "y"}])
    with pytest.raises(ToolError) as caught:
        read_fact_file(path)
    assert told in str(caught.value)
    assert "line 4: 'entity' is missing" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "\u001b" not in str(caught.value)


def test_a_bad_row_of_a_parquet_file_is_named(tmp_path: Path) -> None:
    rows = [*GOOD, {"entity": "x", "object": None, "prompt": None}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    with pytest.raises(ToolError, match="row 10: 'object' is missing"):
        read_fact_file(tmp_path / "a.parquet")


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.csv", b"x,y", "must end in .jsonl or .parquet"),
        ("a.jsonl", b"", "holds no fact"),
        ("a.jsonl", b"\xff\xfe", "is not UTF-8 text"),
        ("a.parquet", b"nonsense", "is no Parquet file"),
    ],
)
def test_what_is_no_fact_file_is_refused(
    tmp_path: Path, name: str, content: bytes, told: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ToolError) as caught:
        read_fact_file(tmp_path / name)
    assert told in str(caught.value)


def test_a_missing_file_and_missing_prompts_are_told(tmp_path: Path) -> None:
    with pytest.raises(ToolError, match="No such file"):
        read_fact_file(tmp_path / "nowhere.jsonl")
    bare = [{"entity": row["entity"], "object": row["object"]} for row in GOOD]
    with pytest.raises(ToolError, match="no row has a 'prompt'"):
        load_relation(str(_jsonl(tmp_path / "b.jsonl", [*bare])))
