import errno
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from dragoman.core.errors import IntegrityError, Interrupted, ToolError, UserError
from dragoman.core.files import write_atomic
from dragoman.core.records import Site
from dragoman.tools.captioning import passes, silence, store
from dragoman.tools.captioning.corpora import open_corpus
from dragoman.tools.captioning.corpus import Corpus
from dragoman.tools.captioning.dictionaries import SparseDictionary
from dragoman.tools.captioning.exemplars import TOP_CONTEXTS, QuantileSketch
from dragoman.tools.captioning.passes import collect
from dragoman.tools.captioning.store import ExemplarStore, merge
from dragoman.tools.captioning.tokens import token_table
from dragoman.tools.captioning.units import UnitLayer, read_layers
from dragoman.tools.context import ToolContext

NAMES = ["France", "Japan", "a dog", "an animal", "Paris", "Tokyo", "capital"]
WHERES = [UnitLayer(layer=2), UnitLayer(kind="resid", layer=0), UnitLayer(kind="head", layer=1)]


def _texts(n, seed=0):
    generator = np.random.default_rng(seed)
    return [
        " ".join(generator.choice(NAMES, generator.integers(1, 14))) + f" {seed}.{number}"
        for number in range(n)
    ]


def _corpus(texts):
    return Corpus(id="test", description="some texts", documents=tuple(texts))


def _written(folder, parts):
    folder.mkdir()
    for number, texts in enumerate(parts):
        (folder / f"{number}.txt").write_text("\n".join(texts))
    return folder


def _tensors(folder):
    (units,) = folder.glob("units-*.safetensors")
    return load_file(units)


def _same(left, right):
    first, second = _tensors(left), _tensors(right)
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert tensor.numpy().tobytes() == second[name].numpy().tobytes(), name


@pytest.fixture
def context(make_tiny, tmp_path):
    return ToolContext(make_tiny(), 5, tmp_path, tmp_path / "artifacts", tmp_path / "cache")


def test_the_pass_finds_what_brute_force_finds(context, monkeypatch):
    monkeypatch.setattr(passes, "SKETCH_BITS", 0)
    texts = _texts(100)
    found = collect(context, _corpus(texts), WHERES, shard_tokens=500)
    assert found.complete
    assert len(found.manifest.shards) > 3
    table = token_table(texts, context.subject.tokenizer)
    assert found.n_positions == table.n
    every = {where: range(found.summaries[where].n_units) for where in WHERES}
    read = read_layers(context, texts, table, every)
    starts = np.flatnonzero(table.index == 0)
    for where in WHERES:
        values = read[where]
        summaries = found.summaries[where]
        np.testing.assert_allclose(summaries.highest, values.max(0), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(summaries.lowest, values.min(0), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(summaries.density(), (values > 0).mean(0), atol=2 / table.n)
        peaks = np.maximum.reduceat(values, starts)
        for unit in every[where]:
            exemplars = found.exemplars(where, unit)
            best = np.sort(peaks[:, unit])[::-1][:TOP_CONTEXTS]
            np.testing.assert_allclose([each.activation for each in exemplars], best, atol=2e-5)
            assert len({each.document for each in exemplars}) == TOP_CONTEXTS
            for each in exemplars:
                at = starts[each.document] + each.position
                assert table.document[at] == each.document
                assert abs(values[at, unit] - each.activation) < 2e-5
        exact = np.quantile(values, 0.99, axis=0, method="inverted_cdf").clip(0)
        allowed = QuantileSketch.RELATIVE_ERROR * exact + 2e-5
        assert (np.abs(found.thresholds(where) - exact) <= allowed).all()


def test_the_sampled_quantile_stays_near_its_rank(context):
    texts = _texts(500)
    where = UnitLayer(layer=1)
    found = collect(context, _corpus(texts), [where])
    table = token_table(texts, context.subject.tokenizer)
    values = read_layers(context, texts, table, {where: range(48)})[where]
    counted = int(found.summaries[where].sketch.counts[0].sum())
    assert abs(counted / table.n - 0.25) < 0.02
    rank = (values <= found.thresholds(where)[None] * (1 + QuantileSketch.RELATIVE_ERROR)).mean(0)
    assert rank.min() > 0.99 - 5 * (0.99 * 0.01 / counted) ** 0.5


def test_the_texts_of_exemplars_are_those_of_the_corpus(context):
    texts = ["", *_texts(50), "\u201cPar\u00eds\u201d \U0001f600 dog"]
    corpus = _corpus([text for text in texts if text])
    found = collect(context, corpus, [UnitLayer(layer=0)], shard_tokens=300)
    for number, text in enumerate(corpus.documents):
        stored = found.text(number)
        assert stored.text == text
        table = token_table([text], context.subject.tokenizer)
        assert stored.tokens(0, 999) == list(table.surface)
    with pytest.raises(IndexError, match=r"document 51 is outside 0\.\.50"):
        found.text(51)


def test_silent_contexts_are_random_and_silent(context):
    texts = [" ".join(_texts(1, seed)[0] for seed in range(n, n + 3)) for n in range(70)]
    found = collect(context, _corpus(texts), [UnitLayer(layer=1)])
    where = UnitLayer(layer=1)
    table = token_table([found.text(n).text for n in range(70)], context.subject.tokenizer)
    values = read_layers(context, [found.text(n).text for n in range(70)], table, {where: [7]})
    silent = found.silent(where, 7, 15)
    assert len(silent) == len(set(silent)) == 15
    assert len({start for _, start in silent}) > 1
    for document, start in silent:
        rows = (table.document == document) & (table.index >= start) & (table.index < start + 16)
        assert rows.any()
        assert values[where][rows, 0].max() <= found.thresholds(where)[7] + 2e-5
    assert found.silent(where, 7, 15) == silent
    assert found.silent(where, 8, 15) != silent


def test_two_shards_merged_equal_one_run_over_both_to_the_bit(context, tmp_path):
    parts = [_texts(90, 1), _texts(70, 2), _texts(40, 3)]
    both = open_corpus(_written(tmp_path / "both", parts))
    whole = collect(context, both, WHERES, shard_tokens=400)
    folders = []
    for number, texts in enumerate(parts):
        alone = open_corpus(_written(tmp_path / f"alone{number}", [texts]))
        folders.append(collect(context, alone, WHERES, shard_tokens=400).folder)
    merged = merge(folders, tmp_path / "merged")
    _same(whole.folder, merged.folder)
    assert merged.manifest.parts == whole.manifest.parts
    assert merged.manifest.n_documents == 200
    for where in WHERES:
        for unit in range(4):
            assert merged.exemplars(where, unit) == whole.exemplars(where, unit)
            assert merged.silent(where, unit, 9) == whole.silent(where, unit, 9)
    for number in (0, 89, 90, 199):
        assert merged.text(number) == whole.text(number)


def test_a_larger_sample_than_contexts_merges_to_the_bit(context, tmp_path, monkeypatch):
    monkeypatch.setattr(silence, "SAMPLED_CONTEXTS", 16)
    parts = [_texts(60, 1), _texts(50, 2)]
    whole = collect(context, open_corpus(_written(tmp_path / "both", parts)), WHERES)
    folders = [
        collect(context, open_corpus(_written(tmp_path / f"alone{n}", [texts])), WHERES).folder
        for n, texts in enumerate(parts)
    ]
    assert len(_tensors(whole.folder)["context_priority"]) == 16
    _same(whole.folder, merge(folders, tmp_path / "merged").folder)


def test_progress_says_how_many_texts_are_read(context, tmp_path):
    said = []
    told = replace(context, progress=lambda done, total, text: said.append((done, total)))
    collect(told, _corpus(_texts(600)), WHERES, folder=tmp_path / "store")
    done = [each for each, total in said]
    assert {total for each, total in said} == {600}
    # All texts are in one shard: it climbs with every batch.
    assert len(done) > 3
    assert done == sorted(set(done))
    assert done[0] == 0
    assert done[-1] < 600


@pytest.mark.parametrize("steps", [1, 3, 5])
def test_a_stopped_run_goes_on_to_the_same_bits(context, tmp_path, steps):
    corpus = _corpus(_texts(90))
    whole = collect(context, corpus, WHERES, shard_tokens=200, folder=tmp_path / "whole")
    folder = tmp_path / "stopped"
    left = [steps]

    def cancelled():
        left[0] -= 1
        return left[0] < 0

    stopping = replace(context, cancelled=cancelled)
    with pytest.raises(Interrupted):
        collect(stopping, corpus, WHERES, shard_tokens=200, folder=folder)
    if steps > 1:
        partial = ExemplarStore.open(folder)
        assert not partial.complete
        assert 0 < partial.manifest.n_documents < 90
        assert partial.exemplars(WHERES[0], 0)
    passes_made = []
    hook = context.subject.blocks[0].register_forward_hook(lambda *args: passes_made.append(1))
    resumed = collect(context, corpus, WHERES, shard_tokens=200, folder=folder)
    again = len(passes_made)
    collect(context, corpus, WHERES, shard_tokens=200, folder=folder)
    hook.remove()
    assert len(passes_made) == again
    _same(whole.folder, resumed.folder)
    assert resumed.manifest == whole.manifest


def test_a_full_disk_keeps_what_is_finished_and_the_run_goes_on_exactly(
    context, tmp_path, monkeypatch
):
    corpus = _corpus(_texts(90))
    whole = collect(context, corpus, WHERES, shard_tokens=400, folder=tmp_path / "whole")
    real, room = save_file, [5]

    def save(tensors, path):
        room[0] -= 1
        if room[0] < 0:
            path.write_bytes(b"half a file")
            raise OSError(errno.ENOSPC, "No space left on device")
        real(tensors, path)

    monkeypatch.setattr(store, "save_file", save)
    folder = tmp_path / "full"
    with pytest.raises(ToolError, match=r"No space left on device.*the first \d+ texts are kept"):
        collect(context, corpus, WHERES, shard_tokens=400, folder=folder)
    kept = ExemplarStore.open(folder)
    assert len(kept.manifest.shards) == 2
    assert not list(folder.glob(".*"))
    monkeypatch.setattr(store, "save_file", real)
    _same(whole.folder, collect(context, corpus, WHERES, shard_tokens=400, folder=folder).folder)


def test_a_run_that_is_killed_goes_on_from_its_last_shard(context, tmp_path, monkeypatch):
    corpus = _corpus(_texts(90))
    whole = collect(context, corpus, WHERES, shard_tokens=400, folder=tmp_path / "whole")
    folder = tmp_path / "killed"
    real, commits = write_atomic, []

    def write(path, content):
        # Killed after the statistics were written, before the manifest names them.
        commits.append(1)
        if len(commits) == 3:
            raise KeyboardInterrupt
        real(path, content)

    monkeypatch.setattr(store, "write_atomic", write)
    with pytest.raises(KeyboardInterrupt):
        collect(context, corpus, WHERES, shard_tokens=400, folder=folder)
    monkeypatch.setattr(store, "write_atomic", real)
    assert len(ExemplarStore.open(folder).manifest.shards) == 2
    resumed = collect(context, corpus, WHERES, shard_tokens=400, folder=folder)
    _same(whole.folder, resumed.folder)


def test_a_store_is_found_again_by_all_that_it_depends_on(context):
    corpus = _corpus(_texts(30))
    first = collect(context, corpus, [UnitLayer(layer=0)])
    assert collect(context, corpus, [UnitLayer(layer=0)]).folder == first.folder
    others = [
        collect(replace(context, seed=6), corpus, [UnitLayer(layer=0)]),
        collect(context, corpus, [UnitLayer(layer=1)]),
        collect(context, _corpus(_texts(31)), [UnitLayer(layer=0)]),
        collect(context, corpus, [UnitLayer(layer=0)], tokens=20),
    ]
    assert len({first.folder, *(other.folder for other in others)}) == 5
    with pytest.raises(ToolError, match="another question or corpus"):
        collect(context, _corpus(_texts(29)), [UnitLayer(layer=0)], folder=first.folder)


def test_documents_are_cut_and_the_longest_come_alone(context):
    texts = ["The capital of France is Paris. " * 90, "A dog.", "Tokyo"]
    found = collect(context, _corpus(texts), [UnitLayer(layer=0)], tokens=21)
    assert len(found.text(0).offsets) == 21
    assert texts[0].startswith(found.text(0).text)
    with pytest.raises(ToolError, match="is longer than the subject's 256"):
        collect(context, _corpus(texts), [UnitLayer(layer=0)], tokens=400)


def test_a_dead_unit_is_told_apart(make_tiny, context):
    subject = make_tiny("llama", 5)
    subject.model.model.layers[1].mlp.up_proj.weight.data[4] = 0
    where = UnitLayer(layer=1)
    found = collect(replace(context, network=subject), _corpus(_texts(40)), [where])
    assert np.flatnonzero(found.summaries[where].dead()).tolist() == [4]
    assert found.summaries[where].density()[4] == 0
    assert found.thresholds(where)[4] == 0


def test_latents_of_a_dictionary_are_units(context):
    generator = torch.Generator().manual_seed(0)
    dictionary = SparseDictionary(
        site=Site(layer=1, kind="mlp_out"),
        encoder=torch.randn(32, 20, generator=generator),
        encoder_bias=torch.zeros(20),
        decoder=torch.randn(20, 32, generator=generator),
        decoder_bias=torch.zeros(32),
        nonlinearity="topk",
        centred=True,
        k=3,
        threshold=None,
        digest="d" * 64,
    )
    where = UnitLayer(kind="latent", layer=1)
    texts = _texts(60)
    found = collect(context, _corpus(texts), [where], dictionary=dictionary)
    table = token_table(texts, context.subject.tokenizer)
    values = read_layers(context, texts, table, {where: range(20)}, dictionary=dictionary)[where]
    np.testing.assert_allclose(found.summaries[where].highest, values.max(0), atol=2e-4)
    assert 0 < found.summaries[where].density().mean() <= 3 / 20


def test_activations_that_are_no_numbers_are_an_error_that_names_the_document(make_tiny, context):
    subject = make_tiny("llama", 9)
    token = subject.continuation_ids("Tokyo")[0]
    subject.model.model.embed_tokens.weight.data[token] = torch.nan
    corpus = _corpus(["A dog", "of Tokyo", "Paris is"])
    with pytest.raises(ToolError, match="not finite in document 1"):
        collect(replace(context, network=subject), corpus, [UnitLayer(layer=0)])


@pytest.mark.parametrize(
    ("texts", "wheres", "named"),
    [
        ([], [UnitLayer(layer=0)], "the corpus is empty"),
        (["A dog"], [UnitLayer(layer=3)], r"layer 3 is outside 0\.\.2"),
        (["A dog"], [], "name at least one"),
        (["A dog"], [UnitLayer(layer=0)] * 2, "each once"),
        (["A dog"], [UnitLayer(kind="latent", layer=0)], "need a sparse dictionary"),
    ],
)
def test_bad_requests_are_named(context, texts, wheres, named):
    with pytest.raises(ToolError, match=named):
        collect(context, _corpus(texts), wheres)


def test_stores_that_do_not_belong_together_are_not_merged(context, tmp_path):
    corpus = _corpus(_texts(30))
    first = collect(context, corpus, [UnitLayer(layer=0)])
    other = collect(replace(context, seed=6), corpus, [UnitLayer(layer=0)])
    with pytest.raises(UserError, match="differ in seed"):
        merge([first.folder, other.folder], tmp_path / "merged")
    with pytest.raises(UserError, match="no exemplar store"):
        merge([first.folder, tmp_path], tmp_path / "merged")
    with pytest.raises(UserError, match="nothing to merge"):
        merge([], tmp_path / "merged")


def test_a_damaged_store_is_refused(context):
    found = collect(context, _corpus(_texts(30)), [UnitLayer(layer=0)])
    (found.folder / found.manifest.units).write_bytes(b"\0" * 40)
    with pytest.raises(IntegrityError, match="delete its folder"):
        ExemplarStore.open(found.folder)
