"""Edits to read on the page: the file as it is, or nothing."""

import json
from pathlib import Path

import pytest

from dragoman.agent.rendering.examples import MOST, examples
from dragoman.core.files import file_sha256
from dragoman.core.records import Artifact

EDIT = {
    "prompt": "The capital of France is",
    "entity": "France",
    "old_object": "Paris",
    "new_object": "Rome",
    "before": "Paris.",
    "after": "Rome <script>",
    "baselines": {"prefix": "Rome"},
    "probabilities": {"new_after": 0.9},
}


def _artifact(home: Path, content: object, name: str = "examples.json") -> Artifact:
    path = home / "run" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content))
    return Artifact(
        name=name, path=f"run/{name}", media_type="application/json", sha256=file_sha256(path)
    )


def test_the_first_few_are_shown(tmp_path: Path) -> None:
    found = examples(_artifact(tmp_path, [EDIT] * (MOST + 3)), tmp_path)
    assert len(found) == MOST
    assert found[0].after == "Rome <script>"
    assert found[0].baselines == {"prefix": "Rome"}


@pytest.mark.parametrize("content", [{"a": 1}, [1], [{**EDIT, "more": 1}], [{"prompt": "x"}]])
def test_another_shape_is_not_shown(tmp_path: Path, content: object) -> None:
    assert examples(_artifact(tmp_path, content), tmp_path) == []


def test_another_file_is_not_shown(tmp_path: Path) -> None:
    assert examples(_artifact(tmp_path, [EDIT], "sweep.json"), tmp_path) == []
    artifact = _artifact(tmp_path, [EDIT])
    (tmp_path / artifact.path).write_text("[]")
    assert examples(artifact, tmp_path) == []
    outside = artifact.model_copy(update={"path": "../examples.json"})
    assert examples(outside, tmp_path) == []
