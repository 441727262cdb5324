"""The causal check: a unit that acts is found, one that is only correlated is not."""

from contextlib import contextmanager

import numpy as np
import pytest
import torch

from dragoman.core.records import Site
from dragoman.tools.captioning import causal
from dragoman.tools.captioning.captioner import Captioner
from dragoman.tools.captioning.causal import CausalCheck, _Move, members_of
from dragoman.tools.captioning.causal_effects import Effects, strengths
from dragoman.tools.captioning.dictionaries import SparseDictionary
from dragoman.tools.captioning.levers import Components, Latents, Lever, levers_of, output_norms
from dragoman.tools.captioning.neighbours import scan_layer
from dragoman.tools.captioning.peers import Peers, peers_of
from dragoman.tools.captioning.predicates import Predicate, Word, either
from dragoman.tools.captioning.tokens import token_table
from dragoman.tools.captioning.units import UnitLayer, read_units
from dragoman.tools.captioning.word_sets import unrelated_sets, word_sets
from dragoman.tools.context import ToolContext
from dragoman.tools.subjects.hooks import Edit
from dragoman.tools.subjects.planted import plant

ACTOR, DECOY = 0, 1
"""The planted units for colours and animals; of the first we choose what it does to the text."""


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """The planted subject; its unit for colours now makes two answers likelier."""
    planted = plant(0)
    subject, truth = planted.subject, planted.truth
    folder = tmp_path_factory.mktemp("causal")
    names = {unit.name: unit for unit in truth.units}
    generator = np.random.default_rng(0)
    frequent = [word for name in ("numbers", "body parts", "metals") for word in names[name].words]
    rare = [word for name in ("colours", "animals") for word in names[name].words]
    documents = [
        " ".join(
            generator.choice(rare if generator.random() < 0.12 else frequent) for _ in range(40)
        )
        for _ in range(120)
    ]
    context = ToolContext(subject, 0, folder, folder, folder)
    table = token_table(documents, subject.tokenizer)
    unembedding = subject.model.get_output_embeddings().weight
    spoken = torch.tensor(
        subject.tokenizer.convert_tokens_to_ids([*truth.linear.objects, *truth.looked_up.objects])
    )
    promoted = [truth.linear.objects[0], truth.linear.objects[1]]
    down = subject.anatomy.blocks[truth.unit_layer].down_projection.weight
    direction = unembedding[subject.tokenizer.convert_tokens_to_ids(promoted)].mean(0)
    neuron = names["colours"].neuron
    assert isinstance(down, torch.Tensor)
    with torch.no_grad():
        # All units make some answer likelier, and write as much as each other.
        some = spoken[torch.from_numpy(generator.integers(2, len(spoken), subject.d_mlp))]
        written = unembedding[some].T.clone()
        written[:, neuron] = direction
        down.copy_(written / written.norm(dim=0))
    units = [neuron, names["animals"].neuron, *truth.decoys[:8]]
    activations = read_units(context, documents, table, truth.unit_layer, units)
    captioner = Captioner(
        table, activations, 2, seed=0, priors=lambda captions: [-9.0] * len(captions)
    )
    where = UnitLayer(layer=truth.unit_layer)
    scan = scan_layer(context, documents, where, units[:2])
    peers = peers_of(context, documents, where, scan, least=41)
    check = CausalCheck(context, captioner, documents, peers, effort="full")
    return check, units, subject, truth, names, promoted


def _words(words):
    predicate: Predicate
    predicate, *rest = [Word(word=word.casefold()) for word in words]
    for each in rest:
        predicate = either(predicate, each)
    return predicate


def _move(check, units, change):
    """Components and latents are moved whatever is read."""
    levers = check._peers.own
    return _Move(
        levers.pushed_at,
        [Lever(levers, unit) for unit in units],
        change,
        {levers.site: change},
    )


def test_what_a_unit_does_to_the_text_is_found(lab):
    check, units, *_, promoted = lab
    causes = check.check(ACTOR, units[ACTOR], _words(promoted))
    effect = causes.effect
    assert effect.metric == "causal_effect"
    assert effect.ci95[0] > effect.baseline
    assert causes.output["target"] == "named"
    assert causes.output["causal_effect"]["effect_nats"] > 0
    assert causes.output["causal_effect"]["p"] <= 0.05
    by_metric = {each.metric: each for each in causes.controls}
    raised = by_metric["causal_effect_amplify_named"]
    assert raised.value > raised.baseline


def test_a_unit_that_is_only_correlated_is_not_called_a_cause(lab):
    check, units, *_, promoted = lab
    causes = check.check(DECOY, units[DECOY], _words(promoted))
    assert not causes.effect.ci95[0] > causes.effect.baseline


def test_units_without_a_say_in_it_are_seldom_called_causes(lab):
    check, units, *_, promoted = lab
    quick = CausalCheck(
        check._context,
        check._captioner,
        check._documents,
        check._peers,
        effort="quick",
    )
    found = [
        quick.check(column, units[column], _words(promoted)) for column in range(2, len(units))
    ]
    checked = [causes for causes in found if causes is not None]
    assert len(checked) >= 6
    called = [causes.effect.ci95[0] > causes.effect.baseline for causes in checked]
    assert sum(called) <= 1
    assert all(not causes.controls[1:] for causes in checked)


def test_a_caption_that_names_nothing_is_tested_on_what_follows(lab):
    check, units, *_ = lab
    causes = check.check(ACTOR, units[ACTOR], None)
    assert causes.output["target"] == "continuation"
    assert {each.metric for each in causes.controls} == {"causal_effect_zero_continuation"}


def test_a_move_by_nothing_changes_nothing(lab):
    check, units, *_ = lab
    spots = check._spots(ACTOR, active=True)
    past = check._subject.forward(spots.before, use_cache=True, logits_to_keep=1).past_key_values
    clean = check._answers(spots, past, None, None).continuation
    still = _move(check, [units[ACTOR], units[DECOY]], torch.zeros(spots.ids.shape))
    same = check._answers(spots, past, still, None).continuation
    assert same == pytest.approx(np.concatenate([clean, clean]), abs=1e-5)


def test_units_moved_in_one_pass_do_not_mix(lab):
    check, units, *_ = lab
    spots = check._spots(ACTOR, active=True)
    past = check._subject.forward(spots.before, use_cache=True, logits_to_keep=1).past_key_values
    change = torch.full(spots.ids.shape, 0.7)
    both = check._answers(spots, past, _move(check, units[:2], change), None).continuation
    for row, unit in enumerate(units[:2]):
        alone = check._answers(spots, past, _move(check, [unit], change), None).continuation
        assert both[row] == pytest.approx(alone[0], abs=1e-5)
    assert np.abs(both[0] - both[1]).max() > 1e-3


def test_passes_that_start_at_the_layer_give_what_whole_passes_give(lab):
    check, units, subject, truth, *_ = lab
    assert truth.unit_layer > 0
    spots = check._spots(ACTOR, active=True)
    past = subject.forward(spots.before, use_cache=True, logits_to_keep=1).past_key_values
    with subject.capture([check._peers.own.site]) as taken:
        clean = check._answers(spots, past, None, None).continuation
    change = 0.3 - taken[check._peers.own.site][..., units[ACTOR]]
    whole = check._answers(spots, past, _move(check, units[:3], change), None).continuation
    with pass_counts(subject) as counts:
        own, *matched = [Lever(check._peers.own, unit) for unit in units[:3]]
        found = check._changed(spots, own, matched, 0.3, None).continuation
    assert found == pytest.approx(clean - whole, abs=1e-5)
    # The texts before the spots, the clean pass, and no more of the blocks below the units'.
    assert counts[0] == 2
    assert counts[truth.unit_layer] > 2


@contextmanager
def pass_counts(subject):
    """How often each block's attention runs."""
    counts = [0] * subject.n_layers
    handles = []
    for layer, parts in enumerate(subject.anatomy.blocks):

        def count(*_, layer=layer):
            counts[layer] += 1

        handles.append(parts.attn_out.register_forward_hook(count))
    yield counts
    for handle in handles:
        handle.remove()


def test_the_scores_are_those_of_a_whole_forward_pass(lab):
    check, _, subject, *_ = lab
    spots = check._spots(ACTOR, active=True)
    past = check._subject.forward(spots.before, use_cache=True, logits_to_keep=1).past_key_values
    cached = check._answers(spots, past, None, None).continuation[0]
    for row in (0, 3):
        before = spots.before.ids[row][spots.before.mask[row] == 1].tolist()
        written = [*before, *spots.ids[row].tolist(), int(spots.follow[row, -1])]
        ids = torch.tensor([written])
        log_probs = subject.model(input_ids=ids).logits.double().log_softmax(-1)
        n = spots.ids.shape[1]
        follow = log_probs[0, -n - 1 : -1].gather(-1, spots.follow[row][:, None])
        assert cached[row] == pytest.approx(float(follow.mean()), abs=1e-4)


def test_matched_units_are_like_in_density_and_norm(lab):
    check, _, subject, truth, *_ = lab
    norms = output_norms(subject, truth.unit_layer)
    down = subject.anatomy.blocks[truth.unit_layer].down_projection.weight
    assert norms == pytest.approx(down.norm(dim=0).detach().numpy(), rel=1e-5)
    density = np.linspace(0, 1, subject.d_mlp)
    levers = Components(check._peers.own.where, np.ones(subject.d_mlp))
    order = Peers((levers,), density).matched(5)
    assert {each.levers.where for each in order} == {UnitLayer(layer=truth.unit_layer)}
    assert sorted(each.unit for each in order) == [*range(5), *range(6, subject.d_mlp)]
    # Here all write as much as each other, so what is left is density.
    assert {each.unit for each in order[:10]} == {*range(11)} - {5}


def test_norms_are_of_output_vectors_in_every_family(any_tiny):
    assert output_norms(any_tiny, 1).shape == (any_tiny.d_mlp,)


@pytest.fixture(scope="module")
def latents(lab):
    """The check of latents that each stand for one neuron."""
    check, _, subject, truth, *_ = lab
    one = torch.eye(subject.d_mlp)
    dictionary = SparseDictionary(
        site=Site(layer=truth.unit_layer, kind="mlp_act"),
        encoder=one,
        encoder_bias=torch.zeros(subject.d_mlp),
        decoder=one,
        decoder_bias=torch.zeros(subject.d_mlp),
        nonlinearity="relu",
        centred=False,
        k=None,
        threshold=None,
        digest="",
    )
    where = UnitLayer(kind="latent", layer=truth.unit_layer)
    return CausalCheck(
        check._context,
        check._captioner,
        check._documents,
        check._peers._replace(layers=(Latents(where, dictionary),)),
        effort="quick",
    )


def test_latents_that_stand_for_neurons_do_what_these_do(lab, latents):
    check, units, *_, promoted = lab
    spots = check._spots(ACTOR, active=True)
    past = check._subject.forward(spots.before, use_cache=True, logits_to_keep=1).past_key_values
    change = torch.full(spots.ids.shape, -0.6)
    neurons = check._answers(spots, past, _move(check, units[:3], change), None)
    same = latents._answers(spots, past, _move(latents, units[:3], change), None)
    assert same.continuation == pytest.approx(neurons.continuation, abs=1e-5)
    causes = latents.check(ACTOR, units[ACTOR], _words(promoted))
    assert causes.effect.ci95[0] > causes.effect.baseline
    assert causes.effect.scope == f"unit latent.{check._peers.own.where.layer}.{units[ACTOR]}"


def test_a_component_of_the_stream_is_moved_along_itself(lab):
    check, _, subject, truth, *_ = lab
    where = UnitLayer(kind="resid", layer=truth.unit_layer)
    scan = scan_layer(check._context, check._documents[:20], where, [])
    levers = levers_of(subject, where, scan)
    peers = Peers((levers,), scan.density)
    resid = CausalCheck(check._context, check._captioner, check._documents, peers, effort="quick")
    spots = check._spots(ACTOR, active=True)
    past = subject.forward(spots.before, use_cache=True, logits_to_keep=1).past_key_values
    with subject.capture([levers.site]) as taken:
        clean = check._answers(spots, past, None, None).continuation
    change = 0.3 - taken[levers.site][..., 2]

    def moved(activations):
        raised = activations.clone()
        raised[..., 2] += change
        return raised

    with subject.editing([Edit(levers.site, moved)]):
        by_hand = check._answers(spots, past, None, None).continuation
    own, other = Lever(levers, 2), Lever(levers, 3)
    found = resid._changed(spots, own, [other], 0.3, None).continuation
    assert found[0] == pytest.approx((clean - by_hand)[0], abs=1e-5)
    assert np.abs(found[0] - found[1]).max() > 1e-4


def test_with_few_like_units_no_rank_means_anything(lab):
    check, units, *_, promoted = lab
    few = check._peers.matched(units[ACTOR])[:18]

    class Fewer(Peers):
        def matched(self, unit):
            return few

    alone = CausalCheck(
        check._context, check._captioner, check._documents, Fewer(*check._peers), effort="quick"
    )
    assert alone.check(ACTOR, units[ACTOR], _words(promoted)) is None


def test_p_values_are_ranks_by_size():
    matched = np.array([[0.1], [-0.5], [0.2], [0.0]] * 10)
    assert Effects(np.array([1.0]), matched).p_value == pytest.approx(1 / 41)
    assert Effects(np.array([-0.3]), matched).p_value == pytest.approx(11 / 41)
    assert Effects(np.array([0.0]), matched).p_value == 1.0


def test_an_effect_above_the_bar_has_a_small_p():
    generator = np.random.default_rng(0)
    for count in (20, 40):
        matched = generator.normal(size=(count, 6))
        sizes = np.abs(matched.mean(axis=1))
        effects = Effects(np.full(6, 1.0), matched)
        above = Effects(np.full(6, effects.bar + 1e-9), matched)
        assert above.p_value <= 0.05
        assert (sizes > effects.bar).sum() <= 0.05 * (count + 1) - 1 + 1e-9 or count == 20


def test_a_set_has_the_probability_of_its_tokens(lab):
    check, _, subject, *_ = lab
    spots = check._spots(ACTOR, active=True)
    past = subject.forward(spots.before, use_cache=True, logits_to_keep=1).past_key_values
    sets = word_sets(check._context)
    answers = check._answers(spots, past, None, members_of(sets, subject.device))
    assert answers.sets.shape == (len(sets), 1, len(spots.ids))
    for row in (0, 3):
        before = spots.before.ids[row][spots.before.mask[row] == 1].tolist()
        logits = subject.model(input_ids=torch.tensor([[*before, int(spots.ids[row, 0])]])).logits
        log_probs = logits[0, -1].double().log_softmax(-1)
        by_hand = [float(log_probs[torch.from_numpy(chosen)].logsumexp(-1)) for chosen in sets]
        assert answers.sets[:, 0, row] == pytest.approx(by_hand, abs=1e-4)


def test_a_unit_that_stirs_up_all_words_is_no_cause_of_any(lab):
    check, units, subject, truth, _, promoted = lab
    down = subject.anatomy.blocks[truth.unit_layer].down_projection.weight
    before = down.detach().clone()
    unembedding = subject.model.get_output_embeddings().weight.detach()
    # It opposes what all tokens but the document's have in common, and does that strongly.
    common = unembedding - unembedding.mean(0)
    *_, axis = torch.linalg.svd(common, full_matrices=False)
    with torch.no_grad():
        down[:, units[ACTOR]] = 3 * axis[0] / axis[0].norm()
    try:
        found = check.check(ACTOR, units[ACTOR], _words(promoted))
    finally:
        with torch.no_grad():
            down.copy_(before)
    told = found.output["causal_effect"]
    assert found.output["n_named_tokens"] == len(promoted)
    assert found.effect.ci95[0] > told["bar_of_units_nats"]
    assert told["n_other_targets"] >= 80
    assert not found.effect.ci95[0] > found.effect.baseline
    assert found.effect.baseline == pytest.approx(told["bar_of_targets_nats"], abs=1e-5)


def test_with_few_other_words_what_follows_is_the_target(lab, monkeypatch):
    check, units, *_, promoted = lab
    some = unrelated_sets(check._context, np.zeros(check._subject.d_vocab, bool))
    told = {}
    for count in (18, 19):
        monkeypatch.setattr(causal, "unrelated_sets", lambda *_, count=count: some[:count])
        told[count] = check.check(ACTOR, units[ACTOR], _words(promoted)).output
    assert told[18]["target"] == "continuation"
    assert told[18]["n_named_tokens"] == 0
    assert told[19]["target"] == "named"
    assert told[19]["causal_effect"]["n_other_targets"] == 19


def test_effects_elsewhere_are_in_units_of_what_like_units_do():
    effects = np.zeros((4, 21, 3))
    effects[0, 0], effects[0, 1], effects[0, 2] = 1.0, -0.5, 0.25
    effects[1, 0], effects[1, 1] = -0.2, 0.4
    effects[2, 0] = 1.0  # no other unit changes it
    effects[3, :, 1] = np.nan
    assert strengths(effects) == pytest.approx([2.0, 0.5])


def test_an_effect_has_to_exceed_those_elsewhere_too():
    matched = np.linspace(-0.1, 0.1, 20)[:, None]
    own = np.array([0.5])
    strong, weak = np.linspace(0, 20, 99), np.linspace(0, 1, 99)
    assert Effects(own, matched).p_value == pytest.approx(1 / 21)
    assert Effects(own, matched, weak).p_value == pytest.approx(1 / 21)
    assert Effects(own, matched, weak).bar == Effects(own, matched).bar
    among = Effects(own, matched, strong)
    assert among.p_value == pytest.approx((1 + (strong >= 5).sum()) / 100)
    assert among.bar == pytest.approx(0.1 * np.sort(strong)[-5])
    above = among._replace(own=np.array([among.bar + 1e-9]))
    assert above.p_value <= 0.05
    # With few of them, it has to exceed each.
    few = Effects(own, matched, np.array([4.0, 1.0]))
    assert few.bar == pytest.approx(0.4)
    assert few.p_value == pytest.approx(1 / 3)
    # Where nothing elsewhere can be compared, nothing is known to be particular.
    none = Effects(own, matched, np.zeros(0))
    assert none.p_value == 1.0
    assert none.measurement("m", "", 0).ci95[0] <= none.bar
