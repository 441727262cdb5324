"""`dragoman relation`: on the planted subject saved to a folder."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from dragoman.core.records import ToolResult
from dragoman.tools.circuits.batch import ROWS_FILE
from dragoman.tools.circuits.lens import LensMap
from dragoman.tools.relations import read_relation
from dragoman.tools.subjects.planted import plant
from dragoman.tui.commands.heat_map import shade

from .conftest import Call

COMMAND = ("relation",)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("planted")
    plant().save(folder)
    return folder


@pytest.fixture
def files(saved: Path, tmp_path: Path) -> Path:
    """One planted relation, one with two bad samples, one with markup in its name."""
    folder = tmp_path / "files"
    folder.mkdir()
    document = json.loads((saved / "relations" / "linear.json").read_text())
    samples = document["samples"]
    (folder / "deeper").mkdir()
    (folder / "deeper" / "b_good.json").write_text(json.dumps({**document, "name": "<b>home</b>"}))
    bad = [*samples[:10], {"subject": "x"}, {"subject": "", "object": "y"}]
    (folder / "a_bad.json").write_text(json.dumps({**document, "samples": bad}))
    return folder


@pytest.mark.parametrize("name", ["fit", "lens", "edit", "trace", "compare", "find", "list"])
def test_every_command_has_help_with_an_example(call: Call, name: str) -> None:
    said = call(name, "--help")
    assert said.code == 0
    assert f"dragoman relation {name}" in said.out


def test_list_shows_ours(call: Call) -> None:
    said = call("list", "--json")
    rows = json.loads(said.out)["relations"]
    assert said.code == 0
    assert "country_capital" in {row["name"] for row in rows}
    assert all(row["samples"] >= 8 for row in rows)


def test_list_names_every_bad_sample_of_a_folder(call: Call, files: Path) -> None:
    (files / "deeper" / "b_good.json").unlink()
    said = call("list", str(files))
    assert said.code == 2
    assert "samples[10].object is missing" in said.err
    assert "samples[11].subject is empty" in said.err
    assert len(said.err.splitlines()) == 1


def test_fit_prints_exactly_one_object(call: Call, saved: Path) -> None:
    relation = str(saved / "relations" / "linear.json")
    said = call("fit", relation, "--subject", str(saved / "subject"), "--quick", "--json")
    result = ToolResult.model_validate_json(said.out)
    assert said.code == 0
    measured = result.measurement("faithfulness")
    assert measured is not None
    assert measured.value == 1.0


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("fit", "country_capitol"), "did you mean 'country_capital'"),
        (("fit", "country_capital", "--out", "x"), "--out goes with a folder"),
        (("lens", "nowhere/x.json"), "no file"),
        (("compare", "country_capital"), "at least 2 items"),
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


def test_a_mistake_with_json_is_one_object_all_the_same(call: Call) -> None:
    said = call("trace", "country_capitol", "--json")
    assert said.code == 2
    assert ToolResult.model_validate_json(said.out).status == "error"


def test_lens_draws_and_reads(call: Call, saved: Path, tmp_path: Path) -> None:
    relation = str(saved / "relations" / "linear.json")
    png = tmp_path / "lens.png"
    said = call(
        *("lens", relation, "--subject", str(saved / "subject"), "--quick", "--png", str(png))
    )
    assert said.code == 0, said.err
    assert png.read_bytes().startswith(b"\x89PNG")
    assert "█" in said.out
    assert "lens_recall_at_1" in said.out


def test_weights_held_in_half_the_memory_give_the_same_map(
    call: Call, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    relation = str(saved / "relations" / "linear.json")
    arguments = ("fit", relation, "--subject", str(saved / "subject"), "--quick", "--json")
    found = []
    for dtype in ("float32", "bfloat16"):
        monkeypatch.setenv("DRAGOMAN_SUBJECT_DTYPE", dtype)
        said = call(*arguments)
        assert said.code == 0, said.err
        found.append(json.loads(said.out))
    wide, narrow = (each["output"]["verdict"]["label"] for each in found)
    assert wide == narrow == "linear here and causal"
    for command in ("edit", "trace"):
        said = call(command, *arguments[1:])
        assert said.code == 2
        assert "leave DRAGOMAN_SUBJECT_DTYPE out" in json.loads(said.out)["error"]
    from dragoman.tui.cli import run

    assert run(["caption", str(saved / "subject"), "--quick"]) == 2
    # Other numbers are another subject: nothing of one is shown for the other.
    assert found[0]["experiment_id"] != found[1]["experiment_id"]


def test_a_folder_becomes_a_table_and_a_page_and_goes_on(
    call: Call, saved: Path, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "fitted"
    arguments = (
        *("fit", str(files), "--subject", str(saved / "subject")),
        *("--quick", "--out", str(out), "--json"),
    )
    said = call(*arguments)
    assert said.code == 2  # one file is at fault, and is told; the other is measured
    assert "samples[10].object is missing" in said.err
    document: dict[str, Any] = json.loads(said.out)
    assert [row["status"] for row in document["relations"]] == ["error", "ok"]
    assert [row["file"] for row in document["relations"]] == ["a_bad.json", "deeper/b_good.json"]
    table = pq.read_table(out / "relations.parquet").to_pylist()
    lines = (out / "relations.jsonl").read_text().splitlines()
    assert table == [json.loads(line) for line in lines]
    assert table[1]["faithfulness"] == 1.0
    assert table[0]["faithfulness"] is None
    assert table[1]["verdict"] == "linear here and causal"
    assert table[0]["verdict"] is None
    assert table[1]["faithfulness_lowest_split"] == 1.0
    assert table[1]["faithfulness_whole_object"] == 1.0
    assert table[1]["faithfulness: shuffled relation"] < 0.6
    assert table[1]["causality: random direction of equal norm"] is not None
    page = (out / "relations.html").read_text()
    assert "default-src 'none'" in page
    assert "<script" not in page
    assert "<b>home</b>" not in page
    assert "&lt;b&gt;home&lt;/b&gt;" in page
    assert "data:image/svg+xml;base64," in page

    from dragoman.agent.workbench import Workbench

    def refuse(self: Workbench, *given: Any, **options: Any) -> ToolResult:
        raise AssertionError("what is done was run again")

    monkeypatch.setattr(Workbench, "run_tool", refuse)
    rows = (out / ROWS_FILE).read_bytes()
    again = call(*arguments)
    assert json.loads(again.out) == document
    assert (out / ROWS_FILE).read_bytes() == rows


def test_a_changed_file_and_a_broken_row_are_done_again(saved: Path, tmp_path: Path) -> None:
    from dragoman.tools.circuits.batch import relation_files, run_batch
    from dragoman.tools.circuits.tool import approximate_relation

    folder = tmp_path / "files"
    folder.mkdir()
    source = (saved / "relations" / "linear.json").read_text()
    for name in ("a.json", "b.json"):
        (folder / name).write_text(source)
    ran: list[str] = []

    def measure(path: Path) -> ToolResult:
        ran.append(path.name)
        experiment = approximate_relation.experiment(
            {"relation": path.name}, subject_digest="", seed=0
        )
        return ToolResult.failure(experiment, "not now")

    def batch(key: str = "k") -> list[str]:
        ran.clear()
        files = relation_files(folder)
        run_batch(folder, files, tmp_path, key, measure, lambda done, total, text: None)
        return list(ran)

    assert batch() == ["a.json", "b.json"]
    assert batch() == []
    (folder / "a.json").write_text(source + " ")
    assert batch() == ["a.json"]
    rows = (tmp_path / ROWS_FILE).read_text()
    (tmp_path / ROWS_FILE).write_text(rows[:-40])
    assert batch() == ["b.json"]
    assert batch("other settings") == ["a.json", "b.json"]


def test_the_heat_map_in_characters_has_a_line_for_each_layer() -> None:
    read = LensMap(
        relation="r",
        text="t",
        entity=None,
        object=None,
        tokens=("a", "b"),
        layers=(0, 3),
        read=((("x",), ("y",)), (("z",), ("w",))),
        probability=((0.1, 0.5), (0.9, 0.0)),
        object_probability=None,
        output=("o", "p"),
    )
    lines = shade(read).splitlines()
    assert lines[1] == "   3 ██  "
    assert lines[2] == "   0   ▒▒"
    assert "the output says 'o', layer 3 reads 'z'" in lines[3]


def test_a_template_is_found_for_pairs_and_the_file_can_be_fitted(
    call: Call, saved: Path, tmp_path: Path
) -> None:
    document = json.loads((saved / "relations" / "linear.json").read_text())
    pairs = tmp_path / "pairs.tsv"
    lines = [f"{each['subject']}\t{each['object']}\n" for each in document["samples"]]
    pairs.write_text("".join(lines))
    out = tmp_path / "found.json"
    said = call(
        *("find", str(pairs), "--template", "{} lives in", "--out", str(out), "--json"),
        *("--subject", str(saved / "subject")),
    )
    assert said.code == 0, said.err
    assert json.loads(said.out)["known"]["value"] == 1.0
    assert read_relation(out).prompt_templates == ("{} lives in",)


def test_a_line_that_is_no_pair_is_named(call: Call, tmp_path: Path) -> None:
    pairs = tmp_path / "pairs.tsv"
    pairs.write_text("France\tParis\nPeru Lima\n")
    said = call("find", str(pairs))
    assert said.code == 2
    assert "line 2: must be a subject, one tab and an object" in said.err
    assert "No such file" in call("find", str(tmp_path / "no.tsv")).err


def test_relations_are_found_for_entities_alone(call: Call, saved: Path, tmp_path: Path) -> None:
    document = json.loads((saved / "relations" / "linear.json").read_text())
    entities = tmp_path / "entities.txt"
    entities.write_text("".join(f"{each['subject']}\n" for each in document["samples"]))
    out = tmp_path / "found.json"
    said = call(
        *("find", str(entities), "--template", "{} lives in", "--out", str(out), "--json"),
        *("--subject", str(saved / "subject")),
    )
    assert said.code == 0, said.err
    best = json.loads(said.out)["relations"][0]
    assert best["consistent"]["value"] > best["consistent"]["baseline"]
    assert read_relation(out).prompt_templates == (best["template"],)
    entities.write_text("Peru\nChile\tSantiago\n")
    mixed = call("find", str(entities))
    assert mixed.code == 2
    assert "line 2: a pair among lines that hold one entity each" in mixed.err
