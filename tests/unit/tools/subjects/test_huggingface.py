"""Loading from folders: what is accepted, and what is refused before anything runs."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from dragoman.core.errors import UserError
from dragoman.core.settings import load_settings
from dragoman.tools.subjects.huggingface import load_folder, load_subject, random_twin


@pytest.fixture
def saved(make_tiny: Any, tmp_path: Path) -> Path:
    subject = make_tiny("qwen2")
    subject.model.save_pretrained(tmp_path / "model")
    subject.tokenizer.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_a_saved_folder_is_the_same_subject(saved: Path, make_tiny: Any) -> None:
    loaded, made = load_subject(str(saved), load_settings()), make_tiny("qwen2")
    assert loaded.identity.digest == made.identity.digest
    text = ["The capital of France is"]
    torch.testing.assert_close(loaded.log_probs(text), made.log_probs(text))


@pytest.mark.parametrize(
    "extra",
    [
        {"auto_map": {"AutoModelForCausalLM": "evil.Model"}},
        {"trust_remote_code": True},
        {"_attn_implementation_internal": "owner/kernel"},
        {"text_config": {"auto_map": {"AutoConfig": "evil.Config"}}},
    ],
)
def test_a_configuration_that_names_code_is_refused(saved: Path, extra: dict[str, Any]) -> None:
    path = saved / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **extra}))
    with pytest.raises(UserError, match="could make it run foreign code"):
        load_folder(saved)


def test_a_folder_that_is_no_model_says_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no config\.json"):
        load_folder(tmp_path)


def test_pickled_weights_are_not_read(saved: Path) -> None:
    (saved / "model.safetensors").rename(saved / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"no \*\.safetensors"):
        load_folder(saved)


@pytest.mark.parametrize("kept", [0, 7, 2000])
def test_truncated_weights_are_one_clear_error(saved: Path, kept: int) -> None:
    path = saved / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(UserError, match="cannot be loaded"):
        load_folder(saved)


@pytest.mark.parametrize("content", ["", "[]", "{", '{"model_type": "bart_"}', "[" * 10_000])
def test_a_bad_configuration_is_one_clear_error(saved: Path, content: str) -> None:
    (saved / "config.json").write_text(content)
    with pytest.raises(UserError, match=r"config\.json"):
        load_folder(saved)


def test_weights_of_another_family_are_not_filled_up_with_noise(saved: Path) -> None:
    (saved / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(UserError, match=r"the weight files lack \d+ tensors"):
        load_folder(saved)


def test_an_unknown_name_says_what_would_do() -> None:
    with pytest.raises(UserError, match=r"neither 'smollm2' nor .* nor an existing folder"):
        load_subject("no such model", load_settings())


def test_missing_weights_say_how_to_get_them() -> None:
    with pytest.raises(UserError, match="dragoman weights pull smollm2"):
        load_subject("smollm2", load_settings())


def test_the_random_twin_shares_shape_but_not_weights(tiny_subject: Any) -> None:
    twin = random_twin(tiny_subject, seed=1)
    assert twin.identity.digest != tiny_subject.identity.digest
    assert twin.identity.n_parameters == tiny_subject.identity.n_parameters
    again = random_twin(tiny_subject, seed=1)
    assert again.identity.digest == twin.identity.digest
