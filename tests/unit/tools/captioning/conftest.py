"""Planted texts: random sentences in which a few chosen words are about one in a hundred."""

import json
from importlib import resources
from typing import Any

import numpy as np
import pytest

from dragoman.tools.captioning.tokens import TokenTable, token_table

_FREQUENT = {
    "copper": 0.01,
    "saddle": 0.005,
    "vinegar": 0.005,
    "of": 0.01,
    "1987": 0.004,
    "42": 0.004,
    "306": 0.004,
}
_CAPITALISED = ("months", "countries")


def _vocabulary() -> tuple[list[str], np.ndarray]:
    text = resources.files("dragoman.tools").joinpath("data/captioning/topics.json").read_text()
    listed = json.loads(text)
    capitalised = {word for topic in _CAPITALISED for word in listed[topic]}
    words = sorted({word for each in listed.values() for word in each} - set(_FREQUENT))
    shares = np.full(len(words), (1 - sum(_FREQUENT.values())) / len(words))
    spelled = [word.capitalize() if word in capitalised else word for word in words]
    return [*spelled, *_FREQUENT], np.append(shares, list(_FREQUENT.values()))


def planted_documents(n: int, seed: int, *, length: int = 40) -> list[str]:
    """`n` random texts of `length` words, with a sign after every seventh or so."""
    generator = np.random.default_rng(seed)
    words, shares = _vocabulary()
    documents = []
    for _ in range(n):
        drawn = generator.choice(len(words), length, p=shares)
        signs = np.where(generator.random(length) < 0.15, generator.choice([",", "."], length), "")
        documents.append(
            " ".join(words[row] + str(sign) for row, sign in zip(drawn, signs, strict=True))
        )
    return documents


@pytest.fixture(scope="session")
def word_tokenizer() -> Any:
    """One token a word or sign, with character offsets."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel(unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.WordLevelTrainer(special_tokens=["?"], show_progress=False)
    tokenizer.train_from_iterator(planted_documents(50, 0), trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="?")


@pytest.fixture(scope="session")
def planted(word_tokenizer: Any) -> TokenTable:
    """300 planted documents as a table."""
    return token_table(planted_documents(300, 1), word_tokenizer)
