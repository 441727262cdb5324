"""`dragoman exemplars`: all layers in one pass, parts that merge to the bit, units to read."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from dragoman.tui.cli import run

TEXTS = [
    f"The capital of {country} is {city}, {number} said. A dog is an animal."
    for number, (country, city) in enumerate(
        [("France", "Paris"), ("Japan", "Tokyo"), ("Italy", "Rome"), ("Spain", "Madrid")] * 12
    )
]


class Said(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture(scope="module")
def folder(tiny_subject: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tiny")
    tiny_subject.model.save_pretrained(path)
    tiny_subject.tokenizer.save_pretrained(path)
    half = len(TEXTS) // 2
    corpus = path / "corpus"
    corpus.mkdir()
    for name, texts in (("a.txt", TEXTS[:half]), ("b.txt", TEXTS[half:])):
        (corpus / name).write_text("\n".join(texts))
    return path


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    def calling(*arguments: object) -> Said:
        code = run(["exemplars", *map(str, arguments)])
        captured = capsys.readouterr()
        return Said(code, captured.out, captured.err)

    return calling


def test_parts_that_were_read_apart_merge_to_what_one_pass_leaves(
    call: Callable[..., Said], folder: Path, tmp_path: Path
) -> None:
    stores = []
    for name in ("a.txt", "b.txt", ""):
        out = tmp_path / (name or "whole")
        said = call("collect", folder, "--corpus", folder / "corpus" / name, "--out", out, "--json")
        assert said.code == 0, said.err
        stores.append(json.loads(said.out))
    one, other, whole = stores
    assert whole["layers"] == [f"mlp.{layer}" for layer in range(len(whole["layers"]))]
    assert len(whole["layers"]) > 1
    assert whole["n_documents"] == one["n_documents"] + other["n_documents"] == len(TEXTS)
    target = tmp_path / "both"
    merged = call("merge", one["folder"], other["folder"], "--out", target)
    assert merged.code == 0, merged.err
    assert merged.out.strip().endswith(str(target))
    units = ["0.3", "mlp.1.5"]
    shown = [
        json.loads(call("show", store, *units, "--json").out)
        for store in (target, tmp_path / "whole")
    ]
    assert shown[0] == shown[1]
    assert [entry["unit"] for entry in shown[0]] == ["mlp.0.3", "mlp.1.5"]
    again = call("merge", one["folder"], "--out", target)
    assert again.code == 2
    assert "is there already" in again.err


def test_units_are_shown_with_their_peaks_marked(
    call: Callable[..., Said], folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "store"
    corpus = folder / "corpus"
    said = call("collect", folder, "--layers", "1", "--corpus", corpus, "--out", out)
    assert said.code == 0, said.err
    assert "48 texts" in said.out
    shown = call("show", out, "1.5")
    assert shown.out.startswith("mlp.1.5: active at ")
    assert "«" in shown.out
    # Asked again, nothing is read again.
    again = call("collect", folder, "--layers", "1", "--corpus", corpus, "--out", out)
    assert again.out == said.out
    assert "reading" in said.err
    assert "reading" not in again.err


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--layers", "99"], "--layers 99: the subject has layers 0 to"),
        (["--kind", "latent"], "--kind latent needs the autoencoder"),
        (["--corpus", "nowhere.txt"], "nowhere.txt"),
    ],
)
def test_wrong_options_are_named(
    call: Callable[..., Said], folder: Path, arguments: list[str], complaint: str
) -> None:
    said = call("collect", folder, *arguments)
    assert said.code == 2
    assert complaint in said.err
    assert said.out == ""


def test_a_store_that_is_none_and_a_unit_that_it_lacks_are_named(
    call: Callable[..., Said], folder: Path, tmp_path: Path
) -> None:
    assert "no exemplar store" in call("show", tmp_path, "1.5").err
    out = tmp_path / "store"
    call("collect", folder, "--layers", "1", "--corpus", folder / "corpus", "--out", out)
    for unit, complaint in (
        ("0.5", "the store has units of mlp.1; write for example mlp.1.0"),
        ("1.x", "the store has units of mlp.1"),
        ("1.999999", "mlp.1 has units 0 to"),
    ):
        said = call("show", out, unit)
        assert said.code == 2
        assert complaint in said.err
