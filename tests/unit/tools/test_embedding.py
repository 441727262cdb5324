"""Near in meaning is near in space, whatever the batch; missing weights are said at once."""

from pathlib import Path

import pytest
from transformers.utils import logging

from dragoman.core.errors import UserError
from dragoman.tools.embedding import Embedder


def test_missing_weights_name_the_command(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"lacks config\.json.*weights pull minilm"):
        Embedder(tmp_path)


def test_files_that_are_no_model_name_the_command(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    (tmp_path / "model.safetensors").write_bytes(b"no safetensors")
    tokenizer = (
        '{"version": "1.0", "truncation": null, "padding": null, "added_tokens": [],'
        ' "normalizer": null, "pre_tokenizer": null, "post_processor": null, "decoder": null,'
        ' "model": {"type": "WordLevel", "vocab": {"x": 0}, "unk_token": "x"}}'
    )
    (tmp_path / "tokenizer.json").write_text(tokenizer)
    with pytest.raises(UserError, match="brings it anew"):
        Embedder(tmp_path)(["x"])


@pytest.fixture(scope="module")
def embedder(weights_home: Path) -> Embedder:
    return Embedder(weights_home / "weights" / "minilm")


def cosine(one: list[float], other: list[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))


@pytest.mark.weights
def test_meaning_is_nearness(embedder: Embedder) -> None:
    asked, near, far = embedder(
        [
            "Which country has Paris as its capital?",
            "The subject decodes capitals of countries linearly.",
            "Unit 77 of layer 12 fires on closing brackets.",
        ]
    )
    assert len(asked) == 384
    assert cosine(asked, asked) == pytest.approx(1.0, abs=1e-5)
    assert cosine(asked, near) > cosine(asked, far) + 0.1


@pytest.mark.weights
def test_a_vector_does_not_depend_on_its_batch(embedder: Embedder) -> None:
    texts = ["short", "a much longer sentence about relations in language models " * 3, ""]
    together = embedder(texts * 12)
    assert len(together) == 36
    for text, vector in zip(texts, together, strict=False):
        (alone,) = embedder([text])
        assert cosine(alone, vector) == pytest.approx(1.0, abs=1e-5)
    assert embedder([]) == []


@pytest.mark.weights
def test_text_past_the_limit_is_not_read(embedder: Embedder) -> None:
    long = "word " * 300
    one, other = embedder([long, long + "something else entirely"])
    assert one == other


@pytest.mark.weights
def test_reading_the_weights_prints_nothing(
    weights_home: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    logging.set_verbosity_warning()
    Embedder(weights_home / "weights" / "minilm")(["a text"])
    assert capfd.readouterr() == ("", "")
