"""What ablation sets units of each kind to, and the random sets beside them."""

import numpy as np
import pytest
import torch

from dragoman.core.errors import ToolError
from dragoman.core.records import Site
from dragoman.tools.captioning.ablation_units import (
    ablating,
    check_ablation,
    matched_sets,
    plan_ablation,
)
from dragoman.tools.captioning.dictionaries import SparseDictionary
from dragoman.tools.captioning.heads import heads_of
from dragoman.tools.captioning.levers import (
    Components,
    HeadOutputs,
    Latents,
    Lever,
    Levers,
)
from dragoman.tools.captioning.peers import Peers
from dragoman.tools.captioning.units import UnitLayer
from dragoman.tools.context import ToolContext

TEXTS = ["A dog is an animal.", "Paris"]


def _heads(subject, layer, norms=None):
    where = UnitLayer(kind="head", layer=layer)
    heads = heads_of(subject, layer)
    return HeadOutputs(where, heads, np.ones(len(heads.factors)) if norms is None else norms)


def _before_and_after(subject, site, levers: Levers, units, level):
    batch = subject.batch(TEXTS)
    before = subject.activations(batch, [site])[site]
    edits = ablating([Lever(levers, unit) for unit in units], {levers.where: level}, batch)
    after = subject.activations(batch, [site], edits)[site]
    return before, after, (batch.mask == 1) & (batch.positions > 0)


@pytest.mark.parametrize("kind", ["mlp", "resid"])
def test_components_are_set_and_the_document_start_and_padding_spared(tiny_subject, kind):
    levers = Components(UnitLayer(kind=kind, layer=1), np.ones(tiny_subject.d_mlp))
    width = tiny_subject.site_width(levers.site)
    level = np.arange(width) / 7.0
    before, after, real = _before_and_after(tiny_subject, levers.site, levers, [3, 5], level)
    assert (after[real][:, [3, 5]] == torch.tensor(level[[3, 5]], dtype=torch.float32)).all()
    others = [unit for unit in range(width) if unit not in (3, 5)]
    assert torch.allclose(after[..., others], before[..., others])
    assert torch.allclose(after[~real], before[~real])


def test_heads_set_to_zero_are_zeros_in_what_the_projection_is_given(any_tiny):
    batch = any_tiny.batch(TEXTS)
    real = (batch.mask == 1) & (batch.positions > 0)
    projection = any_tiny.anatomy.blocks[1].attention_projection

    def without(module, args):
        found = args[0].clone()
        for head in (1, 3):
            found[..., head * 8 : head * 8 + 8][real] = 0
        return (found, *args[1:])

    handle = projection.register_forward_pre_hook(without)
    by_hand = any_tiny.all_logits(batch)
    handle.remove()
    levers = _heads(any_tiny, 1)
    edits = ablating([Lever(levers, head) for head in (1, 3)], {levers.where: np.zeros(32)}, batch)
    assert torch.equal(any_tiny.all_logits(batch, edits), by_hand)
    assert not torch.allclose(any_tiny.all_logits(batch), by_hand)


def test_heads_of_several_layers_are_set_each_in_its_own(tiny_subject):
    batch = tiny_subject.batch(TEXTS)
    real = (batch.mask == 1) & (batch.positions > 0)
    first, last = _heads(tiny_subject, 0), _heads(tiny_subject, 2)
    levels = {first.where: np.full(32, 0.5), last.where: np.full(32, -0.25)}
    edits = ablating([Lever(last, 0), Lever(first, 3), Lever(last, 2)], levels, batch)
    taken = tiny_subject.activations(batch, [first.site, last.site], edits)
    assert (taken[first.site][real][:, 24:] == 0.5).all()
    assert not (taken[first.site][real][:, :24] == 0.5).any()
    assert (taken[last.site][real][:, [*range(8), *range(16, 24)]] == -0.25).all()


def test_latents_lose_what_they_write_above_their_level(tiny_subject):
    generator = torch.Generator().manual_seed(0)
    site = Site(layer=1)
    dictionary = SparseDictionary(
        site=site,
        encoder=torch.randn(32, 40, generator=generator),
        encoder_bias=torch.zeros(40),
        decoder=torch.randn(40, 32, generator=generator),
        decoder_bias=torch.zeros(32),
        nonlinearity="relu",
        centred=False,
        k=None,
        threshold=None,
        digest="",
    )
    levers = Latents(UnitLayer(kind="latent", layer=1), dictionary)
    level = np.linspace(0, 2, 40)
    before, after, real = _before_and_after(tiny_subject, site, levers, [7, 30], level)
    active = dictionary.encode(before)[..., [7, 30]]
    surplus = active - torch.tensor(level[[7, 30]], dtype=torch.float32)
    expected = before - surplus @ dictionary.decoder[[7, 30]]
    torch.testing.assert_close(after[real], expected[real], atol=1e-4, rtol=1e-4)
    assert torch.equal(after[~real], before[~real])


def test_the_mean_of_a_head_is_that_of_the_vectors_it_finds(head_lab, tmp_path):
    context = ToolContext(head_lab.subject, 0, tmp_path, tmp_path, tmp_path)
    texts, where = head_lab.documents[:5], UnitLayer(kind="head", layer=2)
    plan = plan_ablation(context, where, [5], texts, "mean", 19)
    for layer in (1, 2, 3):
        site, found = Site(layer=layer, kind="attn_z"), []
        for text in texts:
            batch = head_lab.subject.batch([text])
            found.append(head_lab.subject.activations(batch, [site])[site][0, 1:])
        mean = torch.cat(found).mean(0).numpy()
        level = plan.levels[UnitLayer(kind="head", layer=layer)]
        assert level == pytest.approx(mean, abs=1e-5)
    zero = plan_ablation(context, where, [5], texts, "zero", 19)
    assert {len(level) for level in zero.levels.values()} == {64}
    assert not any(level.any() for level in zero.levels.values())
    assert plan.among == "heads of layers 1 to 3"


def test_random_sets_hold_other_units_of_like_density_and_norm():
    levers = Components(UnitLayer(layer=2), np.ones(80))
    peers = Peers((levers,), np.linspace(0, 1, 80))
    sets = matched_sets(peers, [10, 40], 19, 0)
    assert len({frozenset(each.unit for each in chosen) for chosen in sets}) == 19
    for first, second in sets:
        assert first.unit != second.unit
        assert not {first.unit, second.unit} & {10, 40}
        # A pool is the nineteen nearest.
        assert abs(first.unit - 10) <= 10
        assert abs(second.unit - 40) <= 11
    assert sets == matched_sets(peers, [10, 40], 19, 0)
    alone = matched_sets(peers, [10], 19, 0)
    assert len({chosen[0].unit for chosen in alone}) == 19


def test_random_sets_of_heads_come_from_the_layers_around(head_lab):
    norms = np.linspace(1, 2, 8)
    layers = tuple(_heads(head_lab.subject, layer, norms + layer / 50) for layer in (2, 1, 3))
    sets = matched_sets(Peers(layers, np.ones(24)), [0, 7], 39, 0)
    names = [tuple(each.name for each in chosen) for chosen in sets]
    assert len({frozenset(each) for each in names}) == 39
    assert not {"head.2.0", "head.2.7"} & {name for each in names for name in each}
    assert {name.split(".")[1] for each in names for name in each} == {"1", "2", "3"}


def test_units_that_leave_too_few_are_refused(tiny_subject, head_lab):
    heads = UnitLayer(kind="head", layer=1)
    check_ablation(tiny_subject, heads, [0, 1], 39)
    with pytest.raises(ToolError, match=r"1 of the subject.s 12 heads leave too few"):
        check_ablation(tiny_subject, heads, [0], 19)
    with pytest.raises(ToolError, match=r"head 4 is outside 0..3"):
        check_ablation(tiny_subject, heads, [4], 19)
    # A whole layer may go: others stand in for it.
    check_ablation(head_lab.subject, heads, list(range(8)), 19)
