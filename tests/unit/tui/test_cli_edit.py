"""`dragoman edit`: on the planted subject saved to a folder."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from dragoman.core.records import ToolResult
from dragoman.tools.subjects.planted import plant

from .conftest import Call

COMMAND = ("edit",)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("planted")
    plant().save(folder)
    return folder


@pytest.fixture
def facts(saved: Path, tmp_path: Path) -> Path:
    """Half true and half false facts of the planted subject, with their question."""
    document = json.loads((saved / "relations" / "linear.json").read_text())
    prompt = document["prompt_templates_zs"][0]
    objects = list(dict.fromkeys(each["object"] for each in document["samples"]))
    rows = []
    for place, each in enumerate(document["samples"]):
        shift = 1 + place % 3 if place % 2 else 0
        stated = objects[(objects.index(each["object"]) + shift) % len(objects)]
        rows.append({"entity": each["subject"], "object": stated, "prompt": prompt})
    path = tmp_path / "facts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("name", ["train", "apply", "detect", "list"])
def test_every_command_has_help_with_an_example(call: Call, name: str) -> None:
    said = call(name, "--help")
    assert said.code == 0
    assert f"dragoman edit {name}" in said.out


def test_detect_reads_a_persons_facts_and_writes_a_table(
    call: Call, saved: Path, facts: Path, tmp_path: Path
) -> None:
    table = tmp_path / "risks.parquet"
    subject = str(saved / "subject")
    said = call("detect", str(facts), "--subject", subject, "--quick", "--out", str(table))
    assert said.code == 0
    assert "the subject's own confidence" in said.out
    rows = pq.read_table(table).to_pylist()
    assert len(rows) == 60
    assert sum(row["error_foreseen"] == row["error"] for row in rows) > 48
    assert all(row["reason"] for row in rows)


def test_apply_shows_both_texts_and_what_moved(call: Call, saved: Path) -> None:
    relation = saved / "relations" / "linear.json"
    samples = json.loads(relation.read_text())["samples"]
    first = samples[0]
    other = next(each["object"] for each in samples if each["object"] != first["object"])
    said = call(
        "apply",
        str(relation),
        *("--entity", first["subject"], "--new-object", other),
        *("--subject", str(saved / "subject"), "--quick"),
    )
    assert said.code == 0
    assert "before" in said.out
    assert f"after: {first['subject']} edited" in said.out
    assert "probability of the next word" in said.out
    # What was trained for it is kept, and listed.
    listed = json.loads(call("list", "--json").out)
    assert listed
    assert listed[0]["layer"] >= 0


def test_list_says_how_to_begin(call: Call) -> None:
    said = call("list")
    assert said.code == 0
    assert "dragoman edit train" in said.out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("train", "country_capitol"), "did you mean 'country_capital'"),
        (("detect", "country_capital", "--out", "x.csv"), "must end in .jsonl or .parquet"),
        (("detect", "country_capital", "--relation", "name_gender"), "goes with a file of facts"),
        (("detect", "nowhere.jsonl"), "no file"),
        (("apply", "country_capital", "--entity", "France"), "--new-object"),
    ],
)
def test_mistakes_are_told_in_one_line_before_anything_is_loaded(
    call: Call, arguments: tuple[str, ...], told: str
) -> None:
    said = call(*arguments)
    assert said.code == 2
    assert told in said.err
    assert len(said.err.splitlines()) == 1
    assert not said.out


def test_every_bad_line_of_a_fact_file_is_named(call: Call, tmp_path: Path) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"entity": "x"}\n{"entity": "y", "object": "z"}\nnonsense\n')
    said = call("detect", str(bad), "--relation", "country_capital", "--json")
    assert said.code == 2
    result = ToolResult.model_validate_json(said.out)
    assert result.error is not None
    assert "line 1: 'object' is missing" in result.error
    assert "line 3: is no JSON object" in result.error
