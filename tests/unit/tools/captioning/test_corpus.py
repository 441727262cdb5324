import json

import pytest
import torch

from dragoman.core.errors import Interrupted, UserError
from dragoman.tools.captioning import corpus
from dragoman.tools.captioning.corpus import openings, read_corpus, sample_corpus, sample_ids
from dragoman.tools.context import ToolContext


@pytest.fixture
def context(make_tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(corpus, "SHARD_DOCUMENTS", 8)
    return ToolContext(make_tiny(), 3, tmp_path, tmp_path / "artifacts", tmp_path / "cache")


def _with(context, **changes):
    from dataclasses import replace

    return replace(context, **changes)


def test_openings_are_many_distinct_and_ordered_by_seed():
    assert len(openings(0)) == len(set(openings(0))) == 1000
    assert openings(0) != openings(1)
    assert sorted(openings(0)) == sorted(openings(1))


def test_same_seed_same_text_other_seed_other_text(context, tmp_path):
    first = sample_corpus(context, 12, tokens=10)
    fresh = sample_corpus(_with(context, cache=tmp_path / "elsewhere"), 12, tokens=10)
    other = sample_corpus(_with(context, seed=4), 12, tokens=10)
    assert first == fresh
    assert len(first.documents) == 12
    assert first.documents != other.documents
    assert first.id != other.id


def test_a_larger_corpus_begins_with_the_smaller_and_samples_only_the_rest(context, monkeypatch):
    small = sample_corpus(context, 16, tokens=6)
    calls = []
    real = corpus.sample_ids

    def counted(*args, **more):
        calls.append(1)
        return real(*args, **more)

    monkeypatch.setattr(corpus, "sample_ids", counted)
    large = sample_corpus(context, 24, tokens=6)
    assert large.documents[:16] == small.documents
    assert len(calls) == 1


def test_an_interrupted_run_goes_on_where_it_was(context):
    stop = iter([False, False, True])
    with pytest.raises(Interrupted):
        sample_corpus(_with(context, cancelled=lambda: next(stop)), 24, tokens=6)
    shards = sorted(path.name for path in (context.cache / "corpora").rglob("*.json"))
    assert shards == ["000.json", "001.json"]
    assert len(sample_corpus(context, 24, tokens=6).documents) == 24


def test_a_damaged_shard_is_sampled_anew(context):
    whole = sample_corpus(context, 8, tokens=6)
    (shard,) = (context.cache / "corpora").rglob("000.json")
    shard.write_text('{"documents": [')
    assert sample_corpus(context, 8, tokens=6) == whole


def test_sampling_follows_the_subjects_distribution(make_tiny):
    subject = make_tiny()
    prompts = ["The capital of"] * 4000
    first = sample_ids(subject, prompts, 1, temperature=1.0, seed=0)[:, 0]
    frequency = torch.bincount(first, minlength=subject.d_vocab) / 4000
    expected = subject.log_probs(["The capital of"])[0].exp()
    banned = torch.tensor(subject.tokenizer.all_special_ids)
    assert frequency[banned].sum() == 0
    expected[banned] = 0
    expected = expected / expected.sum()
    assert (frequency - expected).abs().sum() < 0.25
    assert (frequency - expected).abs().max() < 0.03


def test_a_text_file_and_a_jsonl_file_hold_the_same_corpus(make_tiny, tmp_path):
    texts = [f"Text {number} about a dog." for number in range(60)]
    plain, lines = tmp_path / "a.txt", tmp_path / "a.jsonl"
    plain.write_text("\n\n".join(texts))
    lines.write_text("\n".join(json.dumps({"text": text}) for text in texts))
    tokenizer = make_tiny().tokenizer
    assert read_corpus(plain, tokenizer, 100).documents == tuple(texts)
    assert read_corpus(lines, tokenizer, 100).id == read_corpus(plain, tokenizer, 100).id
    assert len(read_corpus(plain, tokenizer, 55).documents) == 55


def test_long_texts_are_cut_to_whole_tokens(make_tiny, tmp_path):
    tokenizer = make_tiny().tokenizer
    (tmp_path / "a.txt").write_text("\n".join(["The capital of France is Paris. " * 40] * 50))
    for text in read_corpus(tmp_path / "a.txt", tokenizer, 100).documents:
        assert len(tokenizer(text)["input_ids"]) <= corpus.TOKENS


@pytest.mark.parametrize(
    ("name", "content", "named"),
    [
        ("a.txt", "one\ntwo", "2 texts; a corpus needs at least 50"),
        ("a.txt", "", "0 texts"),
        ("a.csv", "x", "a corpus is a .txt, .jsonl, .parquet file or"),
        ("a.jsonl", '{"text": "x"}\n{"text": ', "line 2"),
        ("a.jsonl", '{"text": "x"}\n{"body": "y"}', "line 2: no string named 'text'"),
        ("a.txt", b"\xff\xfe", "cannot be read as UTF-8"),
        ("absent.txt", None, "cannot be read"),
    ],
)
def test_a_wrong_corpus_is_named_with_its_fault(make_tiny, tmp_path, name, content, named):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=named):
        read_corpus(path, make_tiny().tokenizer, 100)
