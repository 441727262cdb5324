"""A corpus larger than what captions are judged on: its quantiles and strongest contexts count."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dragoman.core.errors import Interrupted, ToolError, UserError
from dragoman.tools.captioning import batch, passes
from dragoman.tools.captioning import tool as tool_module
from dragoman.tools.captioning.batch_language import LanguageUnits
from dragoman.tools.captioning.bench import lay_out
from dragoman.tools.captioning.captioner import FIT_SHARE
from dragoman.tools.captioning.corpora import open_corpus
from dragoman.tools.captioning.passes import collect
from dragoman.tools.captioning.store import ExemplarStore
from dragoman.tools.captioning.tool import caption_neurons
from dragoman.tools.captioning.units import UnitLayer
from dragoman.tools.captioning.whole import Texts, read_store, read_whole
from dragoman.tools.context import ToolContext

MLP = UnitLayer(layer=1)
NAMES = ["France", "Japan", "a dog", "an animal", "Paris", "Tokyo", "capital"]
UNITS, DECOYS = [3, 7, 20], [40, 41, 42]


@pytest.fixture
def context(make_tiny, tmp_path):
    return ToolContext(make_tiny(), 5, tmp_path, tmp_path / "artifacts", tmp_path / "cache")


@pytest.fixture
def path(tmp_path) -> Path:
    generator = np.random.default_rng(0)
    texts = [
        " ".join(generator.choice(NAMES, generator.integers(4, 14))) + f" {n}" for n in range(300)
    ]
    path = tmp_path / "texts.txt"
    path.write_text("\n".join(texts))
    return path


def _store(texts: Texts) -> ExemplarStore:
    assert texts.whole is not None
    return texts.whole.store


def _bench(context, texts):
    return lay_out(context, MLP, UNITS, DECOYS, texts.corpus, whole=texts.whole)


def test_a_corpus_that_is_not_larger_is_taken_as_it_is(context, path):
    texts = read_whole(context, path, [MLP], 300)
    assert texts.whole is None
    assert texts.corpus.n_documents == 300
    assert not (context.cache / "exemplars").exists()


def test_the_sample_is_drawn_from_all_texts_and_keeps_their_order(context, path):
    texts = read_whole(context, path, [MLP], 60)
    lines = path.read_text().splitlines()
    numbers = [lines.index(text) for text in texts.corpus.documents]
    assert len(set(numbers)) == 60
    assert numbers == sorted(numbers)
    assert max(numbers) > 200
    assert "60 of 300 texts" in texts.corpus.description


def test_the_pass_tells_how_far_it_is(context, path):
    told: list[tuple[int, int, str]] = []
    watching = replace(context, progress=lambda *said: told.append(said))
    read_whole(watching, path, [MLP], 60)
    assert {total for _, total, task in told if task.startswith("reading")} == {300}


def test_a_bad_line_is_told_before_the_pass(context, tmp_path):
    lines = [json.dumps({"text": f"text {n}"}) for n in range(100)] + ["{"]
    (tmp_path / "bad.jsonl").write_text("\n".join(lines))
    with pytest.raises(UserError, match="line 101"):
        read_whole(context, tmp_path / "bad.jsonl", [MLP], 60)
    assert not (context.cache / "exemplars").exists()


def test_thresholds_and_exemplars_are_those_of_all_texts(context, path):
    texts = read_whole(context, path, [MLP], 60)
    captioner = _bench(context, texts).captioner
    store = _store(texts)
    # Nothing that is judged on was looked at.
    n_fit = round(60 * FIT_SHARE)
    seen = set(texts.corpus.documents[: round(60 * 0.6)])
    unseen = set(texts.corpus.documents) - seen
    for column, unit in enumerate(UNITS):
        strongest = store.exemplars(MLP, unit)
        usable = [each for each in strongest if store.text(each.document).text not in unseen]
        shown = [each.activation for each, _ in captioner.exemplars(column)]
        above = [e.activation for e in usable if e.activation > captioner.thresholds[column]]
        assert shown[: len(above)] == pytest.approx(above, rel=1e-4)
        assert captioner.summaries.density()[column] == store.summaries[MLP].density()[unit]
    dense = captioner.summaries.density() > 0.1
    expected = store.thresholds(MLP)[[*UNITS, *DECOYS]]
    assert captioner.thresholds[dense] == pytest.approx(expected[dense])
    assert dense.any()
    assert len(np.unique(captioner.held_out.table.document)) == 60 - round(60 * 0.6)
    assert len(np.unique(captioner.fit.table.document)) > n_fit


def test_a_pass_that_was_stopped_is_kept_and_gone_on_with(context, path, monkeypatch):
    defaults: Any = passes.collect.__kwdefaults__
    monkeypatch.setitem(defaults, "shard_tokens", 600)
    calls = 0

    def stop() -> bool:
        nonlocal calls
        calls += 1
        return calls > 4

    stopped = ToolContext(
        context.network, 5, context.home, context.artifacts, context.cache, cancelled=stop
    )
    with pytest.raises(Interrupted):
        read_whole(stopped, path, [MLP], 60)
    (folder,) = (context.cache / "exemplars").iterdir()
    kept = json.loads((folder / "manifest.json").read_text())
    assert kept["shards"]
    assert not kept["complete"]
    texts = read_whole(context, path, [MLP], 60)
    assert _store(texts).folder == folder
    assert _store(texts).manifest.n_documents == 300


def test_a_batch_says_what_the_tool_says(context, path, tmp_path, monkeypatch):
    monkeypatch.setitem(tool_module.DOCUMENTS, "full", 60)
    texts = read_whole(context, path, [MLP], 60)
    units = LanguageUnits(
        context, {MLP: UNITS}, texts.corpus, effort="full", whole=texts.whole, thorough=True
    )
    folder = tmp_path / "out"
    batch.run(
        folder, units.settings, units.groups, units.describe, resume=False, on_pace=lambda _: None
    )
    rows = list(batch.read_rows(folder))
    arguments = caption_neurons.parse({"layer": 1, "neurons": [*UNITS], "corpus": str(path)})
    experiment = caption_neurons.experiment(arguments, subject_digest="", seed=5)
    entries: Any = caption_neurons.run(context, experiment).output["captions"]
    for row, entry in zip(rows, entries, strict=True):
        assert (row.name, row.caption) == (entry["unit"], entry["caption"])
        assert row.best_rejected == entry.get("best_rejected")
        assert (row.density, row.threshold) == (entry["density"], entry["threshold"])
        assert all(each.tokens for each in row.exemplars)
    alone = LanguageUnits(context, {MLP: UNITS}, texts.corpus, effort="full", thorough=True)
    assert alone.settings != units.settings


def test_a_store_that_was_made_before_serves_as_well(context, path, tmp_path):
    collect(context, open_corpus(path), [MLP], folder=tmp_path / "store")
    texts = read_store(context, tmp_path / "store", [MLP], 60)
    assert texts.corpus.documents == read_whole(context, path, [MLP], 60).corpus.documents
    assert len(read_store(context, tmp_path / "store", [MLP], 1000).corpus.documents) == 300
    everything = read_store(context, tmp_path / "store", [MLP], 1000)
    assert _bench(context, everything).captioner.fit.table.n > 0


def test_a_store_that_does_not_fit_is_refused(context, path, tmp_path, make_tiny):
    store = tmp_path / "store"
    with pytest.raises(UserError, match="no exemplar store"):
        read_store(context, store, [MLP], 60)
    collect(context, open_corpus(path), [MLP], folder=store)
    with pytest.raises(ToolError, match=r"none of mlp\.2"):
        read_store(context, store, [UnitLayer(layer=2)], 60)
    other = ToolContext(make_tiny(seed=3), 5, tmp_path, tmp_path, context.cache)
    with pytest.raises(ToolError, match="another subject"):
        read_store(other, store, [MLP], 60)
    collect(context, open_corpus(path), [MLP], folder=tmp_path / "short", tokens=8)
    with pytest.raises(ToolError, match="cut after 8 tokens"):
        read_store(context, tmp_path / "short", [MLP], 60)
    few = tmp_path / "few.txt"
    few.write_text("\n".join(path.read_text().splitlines()[:20]))
    collect(context, open_corpus(few), [MLP], folder=tmp_path / "few")
    with pytest.raises(UserError, match="at least 50"):
        read_store(context, tmp_path / "few", [MLP], 60)
