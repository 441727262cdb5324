"""A relation that the planted subject knows in half."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import JsonValue

from dragoman.core.records import ToolResult
from dragoman.tools.context import ToolContext
from dragoman.tools.editing.detection.tool import detect_errors
from dragoman.tools.subjects.language import LanguageSubject


@pytest.fixture
def half(files: dict[str, Path], tmp_path: Path) -> Path:
    """The stored relation, every other fact of which states another object of the range."""
    document = json.loads(files["linear"].read_text())
    objects = list(dict.fromkeys(each["object"] for each in document["samples"]))
    for place, each in enumerate(document["samples"]):
        if place % 2:
            shifted = objects.index(each["object"]) + 1 + place % 3
            each["object"] = objects[shifted % len(objects)]
    written = tmp_path / "half.json"
    written.write_text(json.dumps(document))
    return written


@pytest.fixture
def detect(context: Callable[[LanguageSubject], ToolContext]) -> Callable[..., ToolResult]:
    """`detect(subject, relation, ...)` through the registry, as every caller does."""

    def run(subject: LanguageSubject, relation: Path, **arguments: JsonValue) -> ToolResult:
        given = detect_errors.parse({"relation": str(relation), "effort": "quick", **arguments})
        experiment = detect_errors.experiment(given, subject_digest=subject.identity.digest, seed=0)
        return detect_errors.run(context(subject), experiment)

    return run
