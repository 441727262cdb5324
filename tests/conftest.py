"""Fixtures for every test: no outside network, no keys, a data folder of its own."""

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

_WEIGHTS_HOME = os.environ.get("DRAGOMAN_HOME")
FAMILIES = ("gpt2", "gpt_neox", "llama", "qwen2", "gemma", "opt")


@pytest.fixture(autouse=True)
def isolated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A data folder in a temporary place; no keys; sockets reach loopback only."""
    monkeypatch.setenv("DRAGOMAN_HOME", str(tmp_path / "home"))
    for name in (
        "OPENAI_API_KEY",
        "OPENAI_BASE_URL",
        "DRAGOMAN_CHAT_MODEL",
        "DRAGOMAN_WEIGHTS",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    real_connect = socket.socket.connect

    def connect(self: socket.socket, address: Any) -> None:
        if isinstance(address, tuple) and address[0] not in {"127.0.0.1", "::1", "localhost"}:
            raise AssertionError(f"a test tried to reach {address[0]}")
        real_connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", connect)


@pytest.fixture(scope="session")
def weights_home() -> Path:
    """The data folder that holds downloaded weights; `make test` pulls them."""
    import platformdirs

    return Path(_WEIGHTS_HOME) if _WEIGHTS_HOME else platformdirs.user_data_path("dragoman")


@pytest.fixture(scope="session")
def smollm2(weights_home: Path) -> Any:
    """The real default subject."""
    from dragoman.tools.subjects.packaged import load_smollm2

    return load_smollm2(weights_home / "weights")


def _tiny_tokenizer() -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    text = "The capital of France is Paris. The capital of Japan is Tokyo. A dog is an animal. "
    tokenizer.train_from_iterator([text * 4], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|endoftext|>")


def _tiny_model(family: str, d_vocab: int, seed: int) -> Any:
    import torch
    import transformers

    common: dict[str, Any] = {
        "vocab_size": d_vocab,
        "bos_token_id": 0,
        "eos_token_id": 0,
        "pad_token_id": 0,
    }
    modern: dict[str, Any] = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "max_position_embeddings": 256,
    }
    grouped: dict[str, Any] = {**modern, "num_key_value_heads": 2}
    config = {
        "gpt2": lambda: transformers.GPT2Config(
            n_embd=32, n_layer=3, n_head=4, n_positions=256, **common
        ),
        "gpt_neox": lambda: transformers.GPTNeoXConfig(**modern, **common),
        "llama": lambda: transformers.LlamaConfig(**grouped, **common),
        "qwen2": lambda: transformers.Qwen2Config(**grouped, **common),
        "gemma": lambda: transformers.GemmaConfig(**grouped, head_dim=8, **common),
        "opt": lambda: transformers.OPTConfig(
            hidden_size=32,
            ffn_dim=48,
            num_hidden_layers=3,
            num_attention_heads=4,
            max_position_embeddings=256,
            word_embed_proj_dim=32,
            **common,
        ),
    }[family]()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = transformers.AutoModelForCausalLM.from_config(config)
        # Default initialisations leave attention nearly uniform and every logit nearly equal.
        for weight in model.parameters():
            if weight.dim() == 2:
                weight.data.mul_(4)
    return model.float()


@pytest.fixture(scope="session")
def make_tiny() -> Callable[..., Any]:
    """`make_tiny(family, seed=0)`: a tiny random LanguageSubject of one of `FAMILIES`."""

    def make(family: str = "llama", seed: int = 0) -> Any:
        from dragoman.tools.subjects.language import LanguageSubject

        tokenizer = _tiny_tokenizer()
        model = _tiny_model(family, len(tokenizer), seed)
        return LanguageSubject(model, tokenizer, f"tiny {family}")

    return make


@pytest.fixture(scope="session")
def tiny_subject(make_tiny: Callable[..., Any]) -> Any:
    """A tiny random Llama."""
    return make_tiny("llama")


@pytest.fixture(params=FAMILIES)
def any_tiny(request: pytest.FixtureRequest, make_tiny: Callable[..., Any]) -> Iterator[Any]:
    """One tiny random subject of each family that is supported by test."""
    return make_tiny(request.param)
