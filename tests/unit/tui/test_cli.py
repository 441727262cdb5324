"""The command line: help, exit codes, one line for each kind of wrong input."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from dragoman.core.errors import (
    ChatError,
    DragomanError,
    IntegrityError,
    Interrupted,
    LimitReached,
    UserError,
)
from dragoman.tui import cli
from dragoman.tui.cli import app

from .conftest import Call, Said


def every_command(group: Any, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found = [path]
    for name, command in getattr(group, "commands", {}).items():
        found += every_command(command, (*path, name))
    return found


COMMANDS = every_command(typer.main.get_command(app))


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_help_shows_an_example_of_that_very_command(
    call: Call, path: tuple[str, ...]
) -> None:
    said = call(*path, "--help")
    assert said.code == 0
    assert said.err == ""
    examples = said.out[said.out.index("Example") :]
    assert " ".join(("dragoman", *path)) in examples
    assert "..." not in said.out.partition("Commands:")[2]  # no sentence is cut off


def test_the_commands_are_the_documented_ones(call: Call) -> None:
    documented = {
        *("audit", "chat", "doctor", "caption"),
        *(
            f"relation {name}"
            for name in ("fit", "lens", "edit", "trace", "compare", "list", "find")
        ),
        *(f"exemplars {name}" for name in ("collect", "merge", "show")),
        *(f"edit {name}" for name in ("train", "apply", "text", "detect", "list")),
        *("tool list", "tool describe", "tool run"),
        *("report list", "report show", "report export"),
        *("memory list", "memory search"),
        *("weights list", "weights pull", "weights verify"),
    }
    groups = {"", "tool", "report", "memory", "weights", "relation", "edit", "exemplars"}
    assert {" ".join(path) for path in COMMANDS} == documented | groups


@pytest.mark.parametrize("group", [[], ["tool"], ["report"], ["memory"], ["weights"]])
def test_a_group_alone_shows_what_it_can_do(call: Call, group: list[str]) -> None:
    said = call(*group)
    assert said.code == 0
    assert "Commands:" in said.out


def test_version(call: Call) -> None:
    assert call("--version") == Said(0, "dragoman 0.1.0\n", "")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["adit"], "No such command 'adit'. Did you mean 'audit', 'edit'? (see `dragoman --help`)"),
        (["weights", "pul"], "Did you mean 'pull'"),
        (["audit", "--chat", "gpt"], "'gpt' is not one of 'auto', 'local', 'none', 'endpoint'"),
        (["audit", "--questoin", "x"], "No such option"),
        (["audit", "no.yaml"], "no.yaml: no such file"),
        (["audit", "--question", "  "], "'questions.0' should have at least 1 character"),
        (["audit", "--seed", "x"], "--seed"),
        (["audit", "--seed", "-1"], "'seed' should be greater than or equal to 0"),
        (["audit", "--max-minutes", "0"], "'budgets.minutes' should be greater than 0"),
        (["audit", "--max-minutes", "nan"], "'budgets.minutes' should be a finite number"),
        (["audit", "--max-tokens", "-5"], "'budgets.tokens' should be greater than or equal"),
        (["audit", "--out", "/dev/null/x"], "--out /dev/null/x: Not a directory"),
        (["audit", "--resume", "nothing"], "there is no audit 'nothing'"),
        (["audit", "--resume", "x", "--question", "y"], "--resume goes on with the specification"),
        (["report", "show"], "Missing argument 'ID'"),
        (["report", "show", "x"], "no report 'x': there are none yet"),
        (["report", "export", "x", "--format", "pdf"], "'pdf' is not one of 'md', 'html', 'json'"),
        (["report", "export", "x"], "Missing option '--format'"),
        (["weights", "pull", "gpt5"], "no weights are called 'gpt5' (known: smollm2"),
        (["weights", "verify", "gpt5"], "no weights are called 'gpt5'"),
        (["memory", "search"], "Missing argument 'TEXT'"),
        (["memory", "search", "x"], "get them with `dragoman weights pull minilm`"),
        (["chat"], "`dragoman chat` needs a terminal"),
        (["audit", "bad\x1b[2J.yaml"], "bad\\x1b[2J.yaml: no such file"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_input_is_one_line_and_exit_code_2(
    call: Call, arguments: list[str], complaint: str
) -> None:
    said = call(*arguments)
    assert complaint in said.err
    assert said.err.startswith("error: ")
    assert said.err.count("\n") == 1
    assert said.out == ""
    assert said.code == 2


def test_a_broken_setting_is_named(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRAGOMAN_CHAT_THREADS", "many")
    said = call("weights", "list")
    assert said.code == 2
    assert "chat_threads" in said.err


def test_a_data_folder_that_is_a_file_is_one_line(
    call: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DRAGOMAN_HOME", str(tmp_path / "file"))
    said = call("weights", "pull", "smollm2")
    assert said.code == 2
    assert said.err.count("\n") == 1
    assert "DRAGOMAN_HOME" in said.err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UserError("u"), 2),
        (IntegrityError("i"), 2),
        (LimitReached("l"), 3),
        (ChatError("c"), 4),
        (Interrupted("stop"), 130),
    ],
)
def test_each_deliberate_error_has_its_code(
    call: Call, monkeypatch: pytest.MonkeyPatch, error: DragomanError, code: int
) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr("dragoman.core.settings.load_settings", fail)
    said = call("weights", "list")
    assert said == Said(code, "", f"error: {error}\n")


def test_ctrl_c_is_130(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("dragoman.core.settings.load_settings", interrupt)
    assert call("weights", "list").code == 130


def test_a_bug_keeps_its_traceback_but_shows_no_values(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        secret = "sk-" + "canary"
        raise RuntimeError("\x1b[2Jboom") from ValueError(len(secret))

    monkeypatch.setattr("dragoman.core.settings.load_settings", fail)
    said = call("weights", "list")
    assert said.code == cli.BUG
    assert "Traceback (most recent call last)" in said.err
    assert "\\x1b[2Jboom" in said.err
    assert "\x1b" not in said.err
    assert "sk-canary" not in said.err


def test_a_reader_that_goes_away_is_no_error() -> None:
    command = f"{sys.executable} -m dragoman tool --help | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_installed_command_returns_the_code(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "dragoman", "audit", "nowhere.yaml"],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"DRAGOMAN_HOME": str(tmp_path)},
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: nowhere.yaml: no such file\n"
