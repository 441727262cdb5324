import numpy as np
import pytest
import torch

from dragoman.core.errors import ToolError
from dragoman.core.records import Site
from dragoman.tools.captioning.dictionaries import SparseDictionary
from dragoman.tools.captioning.tokens import token_table
from dragoman.tools.captioning.units import (
    UnitLayer,
    check_units,
    n_units,
    read_layers,
    read_units,
)
from dragoman.tools.context import ToolContext

DOCUMENTS = ["The capital of France", "A dog.", "The capital of Japan is Tokyo. A dog is"] * 20


def _context(subject, tmp_path):
    return ToolContext(subject, 0, tmp_path, tmp_path / "artifacts", tmp_path / "cache")


def _dictionary(site, d_in=32, n_latents=20):
    generator = torch.Generator().manual_seed(3)

    def drawn(*shape):
        return torch.randn(shape, generator=generator)

    return SparseDictionary(
        site=site,
        encoder=drawn(d_in, n_latents),
        encoder_bias=drawn(n_latents),
        decoder=drawn(n_latents, d_in),
        decoder_bias=drawn(d_in),
        nonlinearity="relu",
        centred=True,
        k=None,
        threshold=None,
        digest="0" * 64,
    )


def _alone(subject, text, site):
    with torch.no_grad():
        return subject.activations(subject.batch([text]), [site])[site][0]


@pytest.mark.parametrize("family", ["llama", "gpt2", "opt"])
def test_reading_stops_early_and_still_reads_every_token(make_tiny, family, tmp_path):
    subject = make_tiny(family)
    table = token_table(DOCUMENTS, subject.tokenizer)
    read = read_units(_context(subject, tmp_path), DOCUMENTS, table, 1, [4, 0])
    for number in (0, 1, 2, 59):
        alone = _alone(subject, DOCUMENTS[number], Site(layer=1, kind="mlp_act"))
        rows = read[table.document == number]
        np.testing.assert_allclose(rows, alone[-len(rows) :, [4, 0]].numpy(), atol=2e-5)
    assert not any(block._forward_pre_hooks for block in subject.blocks)


def test_one_pass_reads_many_layers_and_kinds(any_tiny, tmp_path):
    dictionary = _dictionary(Site(layer=1, kind="mlp_out"))
    units = {
        UnitLayer(layer=0): [5, 1],
        UnitLayer(layer=2): [7],
        UnitLayer(kind="resid", layer=1): [31, 0, 2],
        UnitLayer(kind="latent", layer=1): [19, 3],
    }
    table = token_table(DOCUMENTS, any_tiny.tokenizer)
    passes = []
    counter = any_tiny.blocks[0].register_forward_hook(lambda *args: passes.append(1))
    read = read_layers(_context(any_tiny, tmp_path), DOCUMENTS, table, units, dictionary=dictionary)
    counter.remove()
    assert len(passes) == 2
    for number in (0, 31, 59):
        rows = table.document == number
        for where, site, change in [
            (UnitLayer(layer=0), Site(layer=0, kind="mlp_act"), None),
            (UnitLayer(layer=2), Site(layer=2, kind="mlp_act"), None),
            (UnitLayer(kind="resid", layer=1), Site(layer=1), None),
            (UnitLayer(kind="latent", layer=1), dictionary.site, dictionary.encode),
        ]:
            alone = _alone(any_tiny, DOCUMENTS[number], site)[-rows.sum() :]
            expected = (alone if change is None else change(alone))[:, units[where]]
            np.testing.assert_allclose(read[where][rows], expected.numpy(), atol=1e-4)
            assert read[where].dtype == np.float32


@pytest.mark.parametrize("family", ["llama", "gpt2", "opt", "gpt_neox"])
def test_a_head_is_as_active_as_what_taking_it_away_removes(make_tiny, family, tmp_path):
    subject = make_tiny(family)
    where = UnitLayer(kind="head", layer=0)
    text = DOCUMENTS[2]
    table = token_table([text], subject.tokenizer)
    read = read_layers(_context(subject, tmp_path), [text], table, {where: [0, 1, 2, 3]})[where]
    projection = subject.anatomy.blocks[0].attention_projection
    site = Site(layer=0, kind="attn_out")
    whole = _alone(subject, text, site)
    for head in range(4):

        def without(module, args, head=head):
            found = args[0].clone()
            found[..., head * 8 : head * 8 + 8] = 0
            return (found,)

        handle = projection.register_forward_pre_hook(without)
        removed = (whole - _alone(subject, text, site)).norm(dim=-1)
        handle.remove()
        np.testing.assert_allclose(read[:, head], removed[-len(read) :].numpy(), rtol=2e-4)


def test_hooks_are_gone_after_an_error(make_tiny, tmp_path):
    subject = make_tiny()
    context = _context(subject, tmp_path)
    where = UnitLayer(kind="head", layer=1)
    table = token_table(["A dog", "A" * 400], subject.tokenizer)
    with pytest.raises(ToolError, match="longer than the subject's"):
        read_layers(context, ["A dog", "A " * 400], table, {where: [0]})
    assert not subject.anatomy.blocks[1].attention_projection._forward_pre_hooks


def test_a_layer_is_written_as_it_is_parsed():
    where = UnitLayer(kind="resid", layer=12)
    assert str(where) == "resid.12"
    assert UnitLayer.parse("resid.12") == where
    for wrong in ("resid", "mlp.-1", "neuron.3", "mlp.1.2", "mlp.x"):
        with pytest.raises(ToolError, match="no layer of units"):
            UnitLayer.parse(wrong)


def test_every_kind_has_its_number_of_units(make_tiny):
    subject = make_tiny()
    numbers = {kind: n_units(subject, UnitLayer(kind=kind, layer=1)) for kind in ("mlp", "resid")}
    assert numbers == {"mlp": 48, "resid": 32}
    assert n_units(subject, UnitLayer(kind="head", layer=1)) == 4
    dictionary = _dictionary(Site(layer=1))
    assert n_units(subject, UnitLayer(kind="latent", layer=1), dictionary) == 20


@pytest.mark.parametrize(
    ("where", "units", "named"),
    [
        (41, [1], "layer 41 is outside 0..2"),
        (1, [3, 99999], "neuron 99999 is outside 0..47 of mlp.1"),
        (1, [3, 4, 3], "neurons: 3 is named twice"),
        (UnitLayer(kind="head", layer=2), [4], "head 4 is outside 0..3 of head.2"),
        (UnitLayer(kind="resid", layer=0), [-1], "component -1 is outside 0..31"),
        (UnitLayer(kind="latent", layer=1), [20], "latent 20 is outside 0..19"),
        (UnitLayer(kind="latent", layer=0), [2], "layer 0: the sparse dictionary reads layer 1"),
    ],
)
def test_units_that_are_not_there_are_named_with_the_range(make_tiny, where, units, named):
    with pytest.raises(ToolError, match=named):
        check_units(make_tiny(), where, units, _dictionary(Site(layer=1)))


def test_latents_need_a_dictionary_of_the_right_width(make_tiny):
    where = UnitLayer(kind="latent", layer=1)
    with pytest.raises(ToolError, match="latents need a sparse dictionary"):
        check_units(make_tiny(), where, [0])
    with pytest.raises(ToolError, match=r"reads vectors of 32; mlp_act of subject .* has 48"):
        check_units(make_tiny(), where, [0], _dictionary(Site(layer=1, kind="mlp_act")))
