"""`dragoman edit`: on the planted subject saved to a folder."""

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from dragoman.core.records import Experiment, Measurement, ToolResult
from dragoman.core.settings import load_settings
from dragoman.tools.editing import training
from dragoman.tools.subjects.planted import plant
from dragoman.tui.commands import edit

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


@pytest.mark.parametrize("name", ["train", "apply", "text", "detect", "list"])
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


def test_own_texts_are_continued_under_several_edits_at_once(call: Call, saved: Path) -> None:
    relation = saved / "relations" / "linear.json"
    samples = json.loads(relation.read_text())["samples"]
    one, two = samples[0], samples[1]
    other = next(
        each["object"] for each in samples if each["object"] not in (one["object"], two["object"])
    )
    said = call(
        "text",
        *(f"{fact['subject']} lives in" for fact in (one, two)),
        *(
            argument
            for fact in (one, two)
            for argument in ("--edit", f"{relation}:{fact['subject']}={other}")
        ),
        *("--subject", str(saved / "subject"), "--quick", "--layer", "2"),
    )
    assert said.code == 0
    for fact in (one, two):
        assert f"after: {fact['subject']} edited" in said.out
        assert f"probability of the next word: planted home of {fact['subject']}" in said.out
    continued = [line.split() for line in said.out.splitlines() if line.startswith(one["object"])]
    assert any(other in words for words in continued)  # the two texts stand side by side
    assert said.out.count("stated before the text") == 2
    assert "random direction of equal norm" in said.out


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
        (("detect", "country_capital", "--entity", "France"), "go together"),
        (("detect", "x.jsonl", "--entity", "a", "--object", "b"), "not with a file of facts"),
        (("apply", "country_capital", "--entity", "France"), "--new-object"),
        (("text", "France is", "--edit", "France=Rome"), "RELATION:ENTITY=OBJECT"),
        (("text", "France is", "--edit", "country_capitol:France=Rome"), "did you mean"),
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


def test_the_text_of_an_applied_edit(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def measured(metric: str, value: float, baseline: float, control: str) -> Measurement:
        return Measurement(
            metric=metric,
            value=value,
            unit="probability",
            baseline=baseline,
            control=control,
            ci95=(value - 0.125, value + 0.125),
            n=3,
            n_failed=0,
        )

    asked = Experiment(tool="edit_representation", arguments={}, subject_digest="", seed=0)
    result = ToolResult(
        experiment=asked,
        experiment_id=asked.id,
        status="ok",
        summary="France: Paris → Rome at layer 13: probability 0.01 before, 0.75 after",
        measurements=(measured("new_object_probability", 0.75, 0.01, "no edit"),),
        output={
            "prompt": "The capital of France is",
            "entity": "France",
            "old_object": "Paris",
            "new_object": "Rome",
            "before": " Paris, which has been the seat of its kings",
            "after": " Rome, where the emperors lived",
            "probabilities": {
                "old_before": 0.5,
                "old_after": 0.0,
                "new_before": 0.01,
                "new_after": 0.75,
            },
        },
        caveats=("one entity says little about others",),
    )
    monkeypatch.setattr(shutil, "get_terminal_size", lambda _: os.terminal_size((60, 24)))
    edit._show_edit(result, tmp_path)
    bars = {part: "█" * part + " " * (20 - part) for part in (0, 10, 15)}
    assert capsys.readouterr().out.splitlines() == [
        "France: Paris → Rome at layer 13: probability 0.01 before, 0.75 after",
        "",
        "The capital of France is …",
        "",
        "before                         after: France edited",
        "────────────────────────────   ────────────────────────────",
        "Paris, which has been the      Rome, where the emperors",
        "seat of its kings              lived",
        "",
        "probability of the next word",
        f"  Paris                      0.500 {bars[10]}  →   0.000",
        f"  Rome                       0.010 {bars[0]}  →   0.750 {bars[15]}".rstrip(),
        "",
        "METRIC                  VALUE  95% INTERVAL  N  CONTROL",
        "new_object_probability  0.75   0.62 to 0.88  3  0.01 no edit",
        "caveat: one entity says little about others",
    ]


def test_ctrl_c_while_training_keeps_no_editor(
    call: Call, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure = training._measure
    epochs: list[int] = []

    def interrupted(*arguments: Any) -> Any:
        epochs.append(arguments[3])
        if epochs[-1] == 1:  # half trained: a better epoch than the start is there already
            signal.raise_signal(signal.SIGINT)
        return measure(*arguments)

    monkeypatch.setattr(training, "_measure", interrupted)
    relation = str(saved / "relations" / "linear.json")
    subject = ("--subject", str(saved / "subject"), "--quick")
    said = call("train", relation, *subject)
    assert said.code == 130
    assert epochs == [0, 1]
    assert json.loads(call("list", "--json").out) == []
    assert not list(load_settings().cache_folder.glob("editors/**/*"))
    # The same command trains it then, and says what it is worth.
    monkeypatch.setattr(training, "_measure", measure)
    said = call("train", relation, *subject)
    assert said.code == 0
    assert "trained a linear editor at layer" in said.out
    assert "neighbourhood_specificity" in said.out
    assert len(json.loads(call("list", "--json").out)) == 1
