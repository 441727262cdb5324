"""A relation that the planted subject knows in half."""

import functools
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import JsonValue

from dragoman.core.records import ToolResult
from dragoman.tools.context import ToolContext
from dragoman.tools.editing.detection.tool import detect_errors
from dragoman.tools.subjects.language import LanguageSubject


@pytest.fixture(scope="session")
def make_half() -> Callable[[Path, Path], Path]:
    """`make_half(relation, folder)`: every other fact states another object of the range."""

    def make(relation: Path, folder: Path) -> Path:
        document = json.loads(relation.read_text())
        objects = list(dict.fromkeys(each["object"] for each in document["samples"]))
        for place, each in enumerate(document["samples"]):
            if place % 2:
                shifted = objects.index(each["object"]) + 1 + place % 3
                each["object"] = objects[shifted % len(objects)]
        written = folder / "half.json"
        written.write_text(json.dumps(document))
        return written

    return make


@pytest.fixture
def half(files: dict[str, Path], make_half: Callable[[Path, Path], Path], tmp_path: Path) -> Path:
    """The stored relation, known in half."""
    return make_half(files["linear"], tmp_path)


@pytest.fixture(scope="session")
def detect_in() -> Callable[..., ToolResult]:
    """`detect_in(home, subject, relation, ...)` through the registry, as every caller does."""

    def run(
        home: Path, subject: LanguageSubject, relation: Path, **arguments: JsonValue
    ) -> ToolResult:
        ctx = ToolContext(
            network=subject, seed=0, home=home, artifacts=home / "run", cache=home / "cache"
        )
        given = detect_errors.parse({"relation": str(relation), "effort": "quick", **arguments})
        experiment = detect_errors.experiment(given, subject_digest=subject.identity.digest, seed=0)
        return detect_errors.run(ctx, experiment)

    return run


@pytest.fixture
def detect(detect_in: Callable[..., ToolResult], tmp_path: Path) -> Callable[..., ToolResult]:
    """`detect(subject, relation, ...)` in a data folder of the test's own."""
    return functools.partial(detect_in, tmp_path / "home")
