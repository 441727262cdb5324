import json

import pytest
import torch
from safetensors.torch import save_file

from dragoman.core.errors import UserError
from dragoman.core.records import Site
from dragoman.tools.captioning.dictionaries import load_dictionary

D_IN, N = 6, 10


def _parts(seed=0):
    generator = torch.Generator().manual_seed(seed)

    def drawn(*shape):
        return torch.randn(shape, generator=generator)

    return drawn(D_IN, N), drawn(N), drawn(N, D_IN), drawn(D_IN)


def _saved(folder, tensors, metadata=None, **settings):
    path = folder / "sae.safetensors"
    save_file({name: each.contiguous() for name, each in tensors.items()}, path, metadata)
    if settings:
        (folder / "cfg.json").write_text(json.dumps(settings))
    return path


def _sae_lens(**more):
    w_enc, b_enc, w_dec, b_dec = _parts()
    return {"W_enc": w_enc, "b_enc": b_enc, "W_dec": w_dec, "b_dec": b_dec, **more}


def _spellings():
    w_enc, b_enc, w_dec, b_dec = _parts()
    return {
        "SAELens": _sae_lens(),
        "sparsify": {
            "encoder.weight": w_enc.T,
            "encoder.bias": b_enc,
            "W_dec": w_dec,
            "b_dec": b_dec,
        },
        "dictionary_learning": {
            "encoder.weight": w_enc.T,
            "encoder.bias": b_enc,
            "decoder.weight": w_dec.T,
            "bias": b_dec,
        },
        "OpenAI": {
            "encoder.weight": w_enc.T,
            "latent_bias": b_enc,
            "decoder.weight": w_dec.T,
            "pre_bias": b_dec,
        },
    }


@pytest.mark.parametrize("spelling", ["SAELens", "sparsify", "dictionary_learning", "OpenAI"])
def test_every_spelling_means_the_same_dictionary(tmp_path, spelling):
    w_enc, b_enc, w_dec, b_dec = _parts()
    found = load_dictionary(_saved(tmp_path, _spellings()[spelling]), 1)
    read = torch.randn(4, 3, D_IN)
    expected = ((read - b_dec) @ w_enc + b_enc).relu()
    torch.testing.assert_close(found.encode(read), expected)
    torch.testing.assert_close(found.decode(expected), expected @ w_dec + b_dec)
    assert (found.d_in, found.n_latents, found.nonlinearity) == (D_IN, N, "relu")


def test_top_k_leaves_the_k_strongest(tmp_path):
    found = load_dictionary(_saved(tmp_path, _sae_lens(), k=3), 1)
    read = torch.randn(50, D_IN)
    latents = found.encode(read)
    assert found.nonlinearity == "topk"
    before = (read - found.decoder_bias) @ found.encoder + found.encoder_bias
    for row, values in zip(latents, before, strict=True):
        strongest = set(values.topk(3).indices.tolist())
        assert set(row.nonzero().flatten().tolist()) == {
            each for each in strongest if values[each] > 0
        }
        torch.testing.assert_close(row[row > 0], values[row > 0])


def test_jump_relu_is_silent_up_to_its_threshold_and_is_not_centred(tmp_path):
    threshold = torch.full((N,), 0.7)
    found = load_dictionary(_saved(tmp_path, _sae_lens(threshold=threshold)), 1)
    read = torch.randn(50, D_IN)
    before = read @ found.encoder + found.encoder_bias
    expected = torch.where(before > 0.7, before, torch.zeros_like(before))
    torch.testing.assert_close(found.encode(read), expected)
    assert ((expected == 0) & (before > 0)).any()


def test_what_the_caller_says_comes_before_the_settings_of_the_file(tmp_path):
    path = _saved(tmp_path, _sae_lens(), {"k": "4"}, architecture="topk", k=2)
    assert load_dictionary(path, 1).k == 4
    assert load_dictionary(path, 1, k=5).k == 5
    assert load_dictionary(path, 1, nonlinearity="relu").nonlinearity == "relu"
    assert load_dictionary(path, 1, centred=False).centred is False


def test_settings_decide_about_the_decoder_bias(tmp_path):
    path = _saved(tmp_path, _sae_lens(), architecture="standard", apply_b_dec_to_input=False)
    assert not load_dictionary(path, 1).centred


@pytest.mark.parametrize(
    ("tensors", "settings", "named"),
    [
        ({"W_enc": torch.zeros(D_IN, N)}, {}, "no W_dec or decoder.weight; it holds W_enc"),
        ({}, {}, "no W_enc or encoder.weight; it holds nothing"),
        (
            _sae_lens(W_dec=torch.zeros(N + 1, D_IN)),
            {},
            "the decoder must map 10 to 6, and it maps 11 to 6",
        ),
        (_sae_lens(W_enc=torch.zeros(N)), {}, "W_enc has the shape (10,), not that of a matrix"),
        (_sae_lens(b_enc=torch.zeros(3)), {}, "b_enc has the shape (3,), and should have (10,)"),
        (_sae_lens(b_dec=torch.zeros(N)), {}, "b_dec has the shape (10,), and should have (6,)"),
        (_sae_lens(threshold=torch.zeros(2)), {}, "threshold has the shape (2,)"),
        (_sae_lens(), {"k": 11}, "top-k needs k within 1..10, and k is 11"),
        (_sae_lens(), {"architecture": "topk"}, "top-k needs k within 1..10, and k is None"),
        (_sae_lens(), {"architecture": "jumprelu"}, "needs a tensor 'threshold' of 10 numbers"),
        (_sae_lens(), {"architecture": "gated"}, "gated dictionaries are not understood"),
        (_sae_lens(), {"normalize_activations": "layer_norm"}, "normalises what it reads"),
    ],
)
def test_a_wrong_file_is_named_with_its_fault(tmp_path, tensors, settings, named):
    path = _saved(tmp_path, tensors, **settings)
    with pytest.raises(UserError) as caught:
        load_dictionary(path, 1)
    assert named in str(caught.value)
    assert str(path) in str(caught.value)


def test_what_is_no_safetensors_file_is_refused(tmp_path):
    path = tmp_path / "sae.safetensors"
    with pytest.raises(UserError, match="cannot be read as safetensors"):
        load_dictionary(path, 1)
    path.write_bytes(b"{}")
    with pytest.raises(UserError, match="cannot be read as safetensors"):
        load_dictionary(path, 1)


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ({"hook_name": "blocks.1.hook_mlp_out", "hook_layer": 1}, "mlp_out"),
        ({"hook_name": "blocks.1.hook_resid_pre"}, "resid_pre"),
        ({"metadata": {"hook_name": "blocks.1.mlp.hook_post"}}, "mlp_act"),
        ({"hookpoint": "layers.1.mlp"}, "mlp_out"),
        ({"hook_point": "model.layers.1"}, "resid_post"),
        ({"hook_name": "blocks.1.attn.hook_z"}, "attn_z"),
        ({"trainer": {"submodule_name": "attention_out_layer_1"}}, "attn_out"),
        ({"k": 3}, "resid_post"),
    ],
)
def test_it_reads_the_site_that_its_settings_name(tmp_path, said, kind):
    found = load_dictionary(_saved(tmp_path, _sae_lens(), **said), 1)
    assert found.site == Site(layer=1, kind=kind)


@pytest.mark.parametrize(
    ("said", "complaint"),
    [
        ("blocks.3.hook_mlp_out", "it reads 'blocks.3.hook_mlp_out', and layer 1 was asked for"),
        ("blocks.1.attn.hook_q", "which is none of the sites that are understood: resid_pre"),
        ("blocks.1.hook_q", "which is none of the sites"),
    ],
)
def test_a_dictionary_of_another_place_is_refused(tmp_path, said, complaint):
    path = _saved(tmp_path, _sae_lens(), hook_name=said)
    with pytest.raises(UserError, match=complaint):
        load_dictionary(path, 1)
