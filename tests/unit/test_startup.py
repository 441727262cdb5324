"""What the command loads before it knows what it is to do."""

import json
import subprocess
import sys

import pytest

HEAVY = ("torch", "transformers", "chromadb", "openai", "langgraph", "textual", "matplotlib")
LIST_HEAVY = (
    "import json, sys\n"
    f"print('\\n' + json.dumps([name for name in {HEAVY!r} if name in sys.modules]))"
)


def loaded_after(code: str) -> list[str]:
    """The heavy libraries that a fresh interpreter has loaded after `code`."""
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n{LIST_HEAVY}"],
        capture_output=True,
        text=True,
        check=True,
    )
    names: list[str] = json.loads(done.stdout.splitlines()[-1])
    return names


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["audit", "--help"],
        ["caption", "--help"],
        ["tool", "run", "--help"],
        ["weights", "list"],
        ["memory", "list"],
        ["report", "list", "--json"],
        ["doctor"],
    ],
    ids=" ".join,
)
def test_nothing_heavy_is_loaded_for_what_does_not_need_it(arguments: list[str]) -> None:
    assert loaded_after(f"from dragoman.tui.cli import run; run({arguments!r})") == []


def test_the_tui_loads_textual_and_nothing_else_before_its_first_frame() -> None:
    assert loaded_after("import dragoman.tui.app") == ["textual"]
