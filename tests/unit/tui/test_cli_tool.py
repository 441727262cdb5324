"""`dragoman tool`: each technique by itself, on a tiny subject saved to a folder."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dragoman.core.records import ToolResult
from dragoman.tools.catalogue import TOOLS
from dragoman.tui.cli import run

from .conftest import Call

COMMAND = ("tool",)

PROMPT = '{"prompt": "The capital of France is"}'


@pytest.fixture(scope="module")
def folder(tiny_subject: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tiny")
    tiny_subject.model.save_pretrained(path)
    tiny_subject.tokenizer.save_pretrained(path)
    return path


def test_list_names_every_tool_with_its_method(call: Call) -> None:
    rows = json.loads(call("list", "--json").out)
    assert {(row["name"], row["method"]) for row in rows} == {
        (tool.name, tool.method) for tool in TOOLS.values()
    }
    assert all(row["summary"] for row in rows)
    lines = call("list").out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == list(TOOLS)


@pytest.mark.parametrize("name", TOOLS)
def test_describe_shows_every_argument(call: Call, name: str) -> None:
    said = call("describe", name)
    assert said.code == 0
    for argument in TOOLS[name].arguments.model_fields:
        assert f"\n  {argument} " in said.out
    assert json.loads(call("describe", name, "--json").out)["arguments"] == TOOLS[name].schema


def test_a_run_prints_exactly_one_object(folder: Path) -> None:
    command = [
        *(sys.executable, "-m", "dragoman", "tool", "run", "predict_next"),
        *("--args", PROMPT, "--subject", str(folder), "--seed", "3", "--json"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ)
    result = ToolResult.model_validate_json(done.stdout)
    assert result.status == "ok"
    assert result.experiment.seed == 3
    assert result.experiment.arguments["prompt"] == "The capital of France is"
    assert result.measurement("probability") is not None
    assert "predict_next" in done.stderr


def test_the_same_run_gives_the_same_result(call: Call, folder: Path) -> None:
    arguments = ("run", "predict_next", "--args", PROMPT, "--subject", str(folder), "--json")
    assert call(*arguments).result == call(*arguments).result


def test_a_run_for_people_shows_the_measurement_with_its_control(call: Call, folder: Path) -> None:
    said = call("run", "predict_next", "--args", PROMPT, "--subject", str(folder))
    assert said.code == 0
    assert "the same token after an unrelated prompt" in said.out


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["predict", "--args", PROMPT], "tool 'predict' is unknown (did you mean 'predict_next'?"),
        (["predict_next", "--args", "{"], "--args is not valid JSON: Expecting property name"),
        (["predict_next", "--args", "[1]"], "--args: give one JSON object"),
        (["predict_next", "--args", '{"prompt": NaN}'], "NaN is not a JSON number"),
        (["predict_next", "--args", '{"prompt": "\\ud800"}'], "--args is not valid JSON"),
        (["predict_next", "--args", "[" * 100_000], "--args: nested too deep"),
        (["predict_next"], "argument 'prompt' is missing"),
        (["predict_next", "--args", '{"prompts": "x"}'], "argument 'prompts' is unknown (known: p"),
        (["predict_next", "--args", '{"prompt": 3}'], "argument 'prompt': Input should be a valid"),
        (
            ["predict_next", "--args", '{"prompt": "x", "top_k": 99}'],
            "argument 'top_k': Input should be less than or equal to 50",
        ),
        (
            ["predict_next", "--args", PROMPT, "--subject", "nowhere"],
            "subject 'nowhere' is neither",
        ),
    ],
    ids=lambda value: " ".join(value)[:60] if isinstance(value, list) else "",
)
def test_a_refusal_is_one_line_or_one_object(
    call: Call, arguments: list[str], complaint: str
) -> None:
    plain = call("run", *arguments)
    assert (plain.code, plain.out) == (2, "")
    assert complaint in plain.err.splitlines()[-1]
    asked = call("run", *arguments, "--json")
    assert asked.code == 2
    assert asked.result.status == "error"
    assert complaint in (asked.result.error or "")


def test_what_a_library_prints_does_not_reach_the_result(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from dragoman.tools.registry import Tool

    real = Tool.run

    def chatty(self: Tool, *arguments: Any) -> ToolResult:
        sys.stdout.write("from python\n")
        os.write(1, b"from C\n")
        return real(self, *arguments)

    monkeypatch.setattr(Tool, "run", chatty)
    code = run(
        ["tool", "run", "predict_next", "--args", PROMPT, "--subject", str(folder), "--json"]
    )
    captured = capfd.readouterr()
    assert code == 0
    assert ToolResult.model_validate_json(captured.out).status == "ok"
    assert "from python" in captured.err
    assert "from C" in captured.err
