"""Planted texts: random sentences in which a few chosen words are about one in a hundred."""

import json
from importlib import resources
from typing import Any, NamedTuple

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


class HeadLab(NamedTuple):
    """A random Llama of four layers of eight heads, one of which promotes some words."""

    subject: Any
    documents: list[str]
    layer: int
    head: int
    promoted: tuple[str, ...]


@pytest.fixture(scope="session")
def head_lab(make_tiny: Any) -> HeadLab:
    """The head writes one direction, more or less of it; that makes the words likelier."""
    import torch
    import transformers

    from dragoman.tools.subjects.language import LanguageSubject

    tokenizer = make_tiny("llama").tokenizer
    layer, head, promoted, d_head = 2, 5, ("Tokyo", "animal"), 8
    config = transformers.LlamaConfig(
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=4,
        num_attention_heads=8,
        attention_bias=True,
        max_position_embeddings=256,
        vocab_size=len(tokenizer),
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = transformers.AutoModelForCausalLM.from_config(config).float()
        for weight in model.parameters():
            if weight.dim() == 2:
                weight.data.mul_(4)
        for block in model.model.layers:
            # Sharp attention: what a head finds changes from token to token.
            block.self_attn.q_proj.weight.data.mul_(4)
    attention = model.model.layers[layer].self_attn
    tokens = [tokenizer(f" {word}")["input_ids"][0] for word in promoted]
    direction = model.lm_head.weight[tokens].detach().sum(0)
    own = slice(head * d_head, (head + 1) * d_head)
    with torch.no_grad():
        written = attention.o_proj.weight[:, own]
        size = written.norm() / d_head**0.5
        written.zero_()
        written[:, 0] = 2 * size * direction / direction.norm()
        # What it finds never changes sign, so that it always writes the same way.
        attention.v_proj.bias[own][0] = 1.0
        attention.v_proj.weight[own] *= 0.5
    generator = np.random.default_rng(0)
    words = ["The", "capital", "of", "France", "is", "Paris", ".", "Tokyo", "A", "dog", "animal"]
    documents = [" ".join(generator.choice(words, 40)) for _ in range(300)]
    return HeadLab(
        LanguageSubject(model, tokenizer, "planted head"), documents, layer, head, promoted
    )
