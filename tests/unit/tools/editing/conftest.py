"""A subject whose truth is known, and contexts to run tools in."""

from collections.abc import Callable
from pathlib import Path

import pytest

from dragoman.tools.context import ToolContext
from dragoman.tools.relations import Relation, read_relation
from dragoman.tools.subjects.language import LanguageSubject
from dragoman.tools.subjects.planted import Planted, plant


@pytest.fixture(scope="session")
def planted() -> Planted:
    """Its linear relation is stored at the entity, its looked-up one is not."""
    return plant(0)


@pytest.fixture
def files(planted: Planted, tmp_path: Path) -> dict[str, Path]:
    """The planted relations as files."""
    return planted.write_relations(tmp_path / "relations")


@pytest.fixture
def linear(files: dict[str, Path]) -> Relation:
    """The relation that is stored at the entity."""
    return read_relation(files["linear"])


@pytest.fixture
def context(tmp_path: Path) -> Callable[[LanguageSubject], ToolContext]:
    """`context(subject)`: seed 0, artifacts and cache in a folder of the test's own."""

    def make(subject: LanguageSubject) -> ToolContext:
        home = tmp_path / "home"
        return ToolContext(
            network=subject, seed=0, home=home, artifacts=home / "run", cache=home / "cache"
        )

    return make
