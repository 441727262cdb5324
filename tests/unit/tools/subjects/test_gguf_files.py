"""GGUF subjects: exact weights, shards, the cache by content, and what is refused."""

import json

import pytest
import torch
from safetensors import safe_open

from dragoman.core.errors import IntegrityError, UserError
from dragoman.core.settings import load_settings
from dragoman.tools.subjects import gguf_files
from dragoman.tools.subjects.huggingface import load_subject
from dragoman.tools.weights import find_weights


def _names(n_layers):
    parts = {
        "attn_q": "self_attn.q_proj",
        "attn_k": "self_attn.k_proj",
        "attn_v": "self_attn.v_proj",
        "attn_output": "self_attn.o_proj",
        "ffn_gate": "mlp.gate_proj",
        "ffn_up": "mlp.up_proj",
        "ffn_down": "mlp.down_proj",
        "attn_norm": "input_layernorm",
        "ffn_norm": "post_attention_layernorm",
    }
    named = {
        "token_embd.weight": "model.embed_tokens.weight",
        "output_norm.weight": "model.norm.weight",
    }
    for layer in range(n_layers):
        for ours, theirs in parts.items():
            named[f"blk.{layer}.{ours}.weight"] = f"model.layers.{layer}.{theirs}.weight"
        for letter in "qkv":
            named[f"blk.{layer}.attn_{letter}.bias"] = (
                f"model.layers.{layer}.self_attn.{letter}_proj.bias"
            )
    return named


@pytest.fixture(scope="module")
def written(make_tiny, tmp_path_factory):
    """A tiny Qwen2 as a GGUF file, and the subject that it was written from."""
    gguf = pytest.importorskip("gguf")
    subject = make_tiny("qwen2")
    model, config = subject.model, subject.model.config
    with torch.no_grad():
        model.lm_head.weight = model.model.embed_tokens.weight  # as in the published file
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    writer = gguf.GGUFWriter(path, "qwen2")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    vocabulary = sorted(subject.tokenizer.get_vocab().items(), key=lambda pair: pair[1])
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list([token for token, _ in vocabulary])
    writer.add_token_types([1] * len(vocabulary))
    merges = json.loads(subject.tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    writer.add_token_merges([" ".join(pair) for pair in merges])
    writer.add_eos_token_id(0)
    writer.add_bos_token_id(0)
    weights = model.state_dict()
    for ours, theirs in _names(config.num_hidden_layers).items():
        writer.add_tensor(ours, weights[theirs].float().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path, subject


def test_a_named_file_has_its_very_weights_and_is_converted_once(written, tmp_path, monkeypatch):
    path, original = written
    monkeypatch.setattr(gguf_files, "_SHARD_BYTES", 20_000)
    subject = load_subject(str(path), load_settings())
    assert subject.identity.name == "tiny"
    assert subject.model.dtype == torch.float32
    theirs = dict(original.model.named_parameters())
    for name, weight in subject.model.named_parameters():
        assert torch.equal(weight, theirs[name]), name
    folders = list((load_settings().cache_folder / "gguf").iterdir())
    assert len(folders) == 1
    shards = sorted(folders[0].glob("*.safetensors"))
    assert len(shards) > 2
    index = json.loads((folders[0] / "model.safetensors.index.json").read_text())
    with safe_open(shards[0], "pt") as opened:
        assert {index["weight_map"][name] for name in opened.keys()} == {shards[0].name}  # noqa: SIM118  (no mapping)

    def never(*arguments):
        raise AssertionError("converted twice")

    monkeypatch.setattr(gguf_files, "_convert", never)
    assert load_subject(str(path), load_settings()).identity == subject.identity


def test_no_such_file_and_no_gguf_file_are_told_apart(tmp_path):
    with pytest.raises(UserError, match="no such GGUF file"):
        load_subject(str(tmp_path / "none.gguf"), load_settings())
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF and then nothing that makes sense")
    with pytest.raises(UserError, match="this GGUF file cannot be read"):
        load_subject(str(broken), load_settings())


def test_a_pinned_name_without_its_file_says_how_to_get_it():
    with pytest.raises(UserError, match=r"weights pull qwen2\.5-coder-1\.5b"):
        load_subject("qwen2.5-coder-1.5b", load_settings())


def test_a_pinned_name_with_another_file_is_refused():
    name = "qwen2.5-coder-1.5b"
    (file,) = find_weights(name).files
    folder = load_settings().weights_folder / name
    folder.mkdir(parents=True)
    with (folder / file.name).open("wb") as opened:
        opened.truncate(file.bytes)  # of the right size, and nothing in it
    with pytest.raises(IntegrityError, match="not the published files"):
        load_subject(name, load_settings())
