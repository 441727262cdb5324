"""The causal check of attention heads, beside heads of the same and of the nearest layers."""

import numpy as np
import pytest
import torch

from dragoman.core.records import Site
from dragoman.tools.captioning.captioner import Captioner
from dragoman.tools.captioning.causal import N_MATCHED, CausalCheck
from dragoman.tools.captioning.heads import heads_of
from dragoman.tools.captioning.levers import HeadOutputs, Lever
from dragoman.tools.captioning.neighbours import scan_layer
from dragoman.tools.captioning.peers import peers_of
from dragoman.tools.captioning.predicates import Word, either
from dragoman.tools.captioning.tokens import token_table
from dragoman.tools.captioning.units import UnitLayer, read_layers
from dragoman.tools.context import ToolContext
from dragoman.tools.subjects.hooks import Edit


@pytest.fixture(scope="module")
def lab(head_lab, tmp_path_factory):
    subject, documents = head_lab.subject, head_lab.documents
    folder = tmp_path_factory.mktemp("heads")
    context = ToolContext(subject, 0, folder, folder, folder)
    where = UnitLayer(kind="head", layer=head_lab.layer)
    every = list(range(8))
    table = token_table(documents, subject.tokenizer)
    read = read_layers(context, documents, table, {where: every})[where]
    captioner = Captioner(table, read, 8, seed=0, priors=lambda captions: [-9.0] * len(captions))
    scan = scan_layer(context, documents, where, every)
    peers = peers_of(context, documents, where, scan, least=1 + N_MATCHED["quick"])
    return CausalCheck(context, captioner, documents, peers, effort="quick")


@pytest.fixture(scope="module")
def predicate(head_lab):
    first, second = (Word(word=word.casefold()) for word in head_lab.promoted)
    return either(first, second)


def test_what_a_head_promotes_is_found(lab, head_lab, predicate):
    causes = lab.check(head_lab.head, head_lab.head, predicate)
    assert causes.output["target"] == "named"
    assert causes.output["n_matched"] == 20
    assert causes.output["causal_effect"]["effect_nats"] > 0
    assert causes.output["causal_effect"]["p"] <= 0.05
    assert causes.effect.ci95[0] > causes.effect.baseline
    assert causes.effect.scope == f"unit head.2.{head_lab.head}"
    assert causes.effect.control == (
        "what one in twenty matched heads of layers 1 to 3 exceeds, "
        "each moved by as much in the same place; or, where that is more, "
        "what the unit itself does to one in twenty other sets of words"
    )


def test_heads_without_a_say_in_it_are_seldom_called_causes(lab, head_lab, predicate):
    others = [head for head in range(8) if head != head_lab.head]
    words = [Word(word=word) for word in ("france", "dog", "japan")]
    found = [lab.check(head, head, said) for head in others for said in (predicate, *words)]
    called = [causes.effect.ci95[0] > causes.effect.baseline for causes in found]
    assert len(called) == 28
    assert sum(called) <= 1
    p_values = np.array([causes.output["causal_effect"]["p"] for causes in found])
    assert (p_values <= 0.05).mean() < 0.1
    assert 0.3 < np.median(p_values) < 0.7


@pytest.mark.parametrize(
    ("layer", "least", "layers"),
    [
        (2, 8, [2]),
        (2, 9, [2, 1, 3]),
        (1, 25, [1, 0, 2, 3]),
        (3, 10, [3, 2]),
        (0, 999, [0, 1, 2, 3]),
    ],
)
def test_as_many_layers_take_part_as_give_enough_heads(lab, layer, least, layers):
    where = UnitLayer(kind="head", layer=layer)
    documents = lab._documents[:20]
    scan = scan_layer(lab._context, documents, where, [])
    peers = peers_of(lab._context, documents, where, scan, least=least)
    assert [each.where.layer for each in peers.layers] == layers
    assert peers.n_units == 8 * len(layers)
    matched = peers.matched(3)
    assert len({each.name for each in matched}) == peers.n_units - 1
    assert f"head.{layer}.3" not in {each.name for each in matched}


def test_heads_are_matched_by_how_much_they_write(lab):
    own = lab._peers.own.norms[4]
    norms = np.array([each.levers.norms[each.unit] for each in lab._peers.matched(4)])
    assert (np.diff(np.abs(np.log(norms / own))) >= -1e-9).all()


def _levers(subject, layer):
    where = UnitLayer(kind="head", layer=layer)
    heads = heads_of(subject, layer)
    return HeadOutputs(where, heads, np.ones(len(heads.factors)))


@pytest.mark.parametrize("family", ["llama", "gpt2", "opt", "gpt_neox", "gemma", "qwen2"])
def test_a_head_moved_to_nothing_is_a_head_that_found_nothing(make_tiny, family):
    subject = make_tiny(family)
    levers = _levers(subject, 1)
    batch = subject.batch(["The capital of Japan is Tokyo. A dog is", "A dog"])
    read = subject.activations(batch, [levers.site])[levers.site]
    norm = levers.read(read)[..., 2]

    def moved(activations):
        raised = activations.clone()
        levers.push(raised, 2, -norm, read)
        return raised

    def without(found):
        silenced = found.clone()
        silenced[..., 16:24] = 0
        return silenced

    real = batch.mask == 1
    pushed = subject.all_logits(batch, [Edit(levers.pushed_at, moved)])
    by_hand = subject.all_logits(batch, [Edit(levers.site, without)])
    torch.testing.assert_close(pushed[real], by_hand[real], atol=1e-3, rtol=1e-3)
    assert not torch.allclose(pushed[real], subject.all_logits(batch)[real], atol=1e-2)


def test_a_head_is_moved_along_what_it_writes(head_lab):
    subject, levers = head_lab.subject, _levers(head_lab.subject, 1)
    batch = subject.batch(head_lab.documents[:2])
    read = subject.activations(batch, [levers.site])[levers.site]
    change = torch.linspace(-3, 3, batch.ids.numel()).view(batch.ids.shape)
    added = torch.zeros(*batch.ids.shape, 64)
    levers.push(added, 6, change, read)
    weight = subject.anatomy.blocks[1].attention_projection.weight[:, 48:56]
    written = read[..., 48:56] @ weight.T
    # The document start is embedded as nought: there the head writes nothing, and stays as it is.
    direction = torch.nan_to_num(written / written.norm(dim=-1, keepdim=True))
    torch.testing.assert_close(added, change[..., None] * direction, atol=1e-5, rtol=1e-4)
    assert not direction[:, :4].all()


def test_heads_of_other_layers_are_tried_where_the_head_writes(lab, head_lab):
    subject, by_layer = head_lab.subject, {each.where.layer: each for each in lab._peers.layers}
    spots = lab._spots(head_lab.head, active=True)
    past = subject.forward(spots.before, use_cache=True, logits_to_keep=1).past_key_values
    own, *matched = [
        Lever(by_layer[layer], head) for layer, head in ((2, head_lab.head), (3, 1), (1, 4), (2, 0))
    ]
    with subject.capture([each.site for each in by_layer.values()]) as taken:
        clean = lab._answers(spots, past, None, None).continuation[0]
    change = 0.3 - own.levers.read(taken[own.levers.site])[..., own.unit]
    effects = lab._changed(spots, own, matched, 0.3, None).continuation
    for (levers, unit), effect in zip((own, *matched), effects, strict=True):
        z = taken[levers.site][..., unit * 8 : unit * 8 + 8]
        layer = levers.where.layer
        weight = subject.anatomy.blocks[layer].attention_projection.weight
        written = z @ weight[:, unit * 8 : unit * 8 + 8].T
        added = change[..., None] * written / written.norm(dim=-1, keepdim=True)

        def moved(activations, added=added):
            return activations + added

        with subject.editing([Edit(Site(layer=2, kind="attn_out"), moved)]):
            by_hand = lab._answers(spots, past, None, None).continuation[0]
        assert effect == pytest.approx(clean - by_hand, abs=1e-5)
        assert np.abs(effect).max() > 1e-4


def test_a_subject_with_few_heads_has_no_check(lab, head_lab, predicate):
    few = lab._peers._replace(layers=lab._peers.layers[:2], density=lab._peers.density[:16])
    check = CausalCheck(lab._context, lab._captioner, lab._documents, few, effort="quick")
    assert check.check(head_lab.head, head_lab.head, predicate) is None
