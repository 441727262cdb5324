"""Identities of the map, its inverse, and what is decoded."""

import pytest
import torch

from dragoman.tools.circuits.approximation import RelationMap, estimate, invert, low_rank
from dragoman.tools.circuits.causality import pair_up, random_like
from dragoman.tools.circuits.faithfulness import recalled, shuffled_hits, whole_hits
from dragoman.tools.circuits.jacobian import Expansion, expand
from dragoman.tools.circuits.prompts import relation_prompt
from dragoman.tools.relations import Sample, is_prefix

EXAMPLES = [Sample(subject="France", object="Paris"), Sample(subject="Japan", object="Tokyo")]


def _random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_one_fact_is_reproduced_at_every_layer(make_tiny):
    subject = make_tiny("llama")
    prompt = relation_prompt("The capital of {} is", EXAMPLES, "Peru")
    expansion = expand(subject, prompt)
    fitted = estimate([expansion], range(3))
    for layer in range(3):
        predicted = fitted.maps[layer](expansion.entity[layer])
        torch.testing.assert_close(predicted, expansion.final, atol=1e-4, rtol=1e-4)
    with torch.no_grad():
        logits = subject.logits(subject.batch([prompt.text]))[0]
        decoded = subject.decode(fitted.maps[2](expansion.entity[2]))
    torch.testing.assert_close(decoded, logits, atol=1e-3, rtol=1e-3)


def test_maps_are_the_means_over_facts_and_leave_their_input_alone():
    expansions = [
        Expansion(_random(2, 4, 4, seed=i), _random(2, 4, seed=i + 9), _random(4, seed=i + 20))
        for i in range(3)
    ]
    kept = expansions[0].jacobian.clone()
    fitted = estimate(expansions, [5, 6])
    assert list(fitted.maps) == [5, 6]
    weight = torch.stack([each.jacobian[1] for each in expansions]).mean(0)
    bias = torch.stack(
        [each.final - each.jacobian[1] @ each.entity[1] for each in expansions]
    ).mean(0)
    torch.testing.assert_close(fitted.maps[6].weight, weight)
    torch.testing.assert_close(fitted.maps[6].bias, bias)
    h = _random(4, seed=40)
    shift = torch.stack([each.final - each.entity[1] for each in expansions]).mean(0)
    torch.testing.assert_close(fitted.translations[6](h), h + shift)
    assert torch.equal(expansions[0].jacobian, kept)


def test_no_fact_gives_no_map():
    with pytest.raises(ValueError, match="no expansion"):
        estimate([], [0])


def test_beta_scales_the_weight_and_not_the_bias():
    relation_map = RelationMap(_random(4, 4), _random(4, seed=1))
    h = _random(3, 4, seed=2)
    torch.testing.assert_close(
        relation_map(h, 2.0) - relation_map(h, 1.0), h @ relation_map.weight.T
    )
    torch.testing.assert_close(relation_map(torch.zeros(4), 7.0), relation_map.bias)


def test_the_full_rank_inverse_inverts_and_a_low_rank_one_projects():
    relation_map = RelationMap(_random(8, 8), torch.zeros(8))
    inverse = invert(relation_map)
    change = _random(3, 8, seed=1)
    whole = inverse.shift(change, 8)
    torch.testing.assert_close(whole @ relation_map.weight.T, change, atol=1e-4, rtol=1e-4)
    left = inverse.left[:, :3]
    low = inverse.shift(change, 3)
    torch.testing.assert_close(
        low @ relation_map.weight.T, change @ left @ left.T, atol=1e-4, rtol=1e-4
    )
    expected = (
        change @ torch.linalg.pinv(left @ torch.diag(inverse.singular[:3]) @ inverse.right[:3]).T
    )
    torch.testing.assert_close(low, expected, atol=1e-4, rtol=1e-4)


def test_no_change_of_z_is_no_shift_and_a_zero_map_shifts_nothing():
    inverse = invert(RelationMap(_random(8, 8), torch.zeros(8)))
    assert not inverse.shift(torch.zeros(2, 8), 5).any()
    empty = invert(RelationMap(torch.zeros(8, 8), torch.zeros(8)))
    assert not empty.shift(_random(2, 8), 5).any()


def test_ranks_share_one_factorisation_and_give_the_same_shifts():
    inverse = invert(RelationMap(_random(16, 16), torch.zeros(16)))
    change = _random(5, 16, seed=2)
    shifts = inverse.shifts(change, [8, 2, 16, 2])
    for place, rank in enumerate([8, 2, 16, 2]):
        torch.testing.assert_close(shifts[place], inverse.shift(change, rank))


def test_singular_values_below_an_absolute_floor_are_no_directions():
    tiny = invert(RelationMap(1e-9 * _random(8, 8), torch.zeros(8)))
    assert not tiny.shift(_random(2, 8), 8).any()
    left, _, right = torch.linalg.svd(_random(8, 8))
    steep = left @ torch.diag(torch.tensor([1.0, 0.5, *[1e-12] * 6])) @ right
    shift = invert(RelationMap(steep, torch.zeros(8))).shift(_random(2, 8), 8)
    assert shift.abs().max() < 100


def _decaying(d_model):
    left, _, right = torch.linalg.svd(_random(d_model, d_model))
    return left @ torch.diag(0.97 ** torch.arange(d_model).float()) @ right


def test_the_randomised_factors_are_those_of_the_whole_decomposition():
    relation_map = RelationMap(_decaying(300), torch.zeros(300))
    whole, few = invert(relation_map), invert(relation_map, 40)
    assert few.left.shape == (300, 40)
    torch.testing.assert_close(few.singular, whole.singular[:40], rtol=1e-4, atol=0)
    change = _random(4, 300, seed=3)
    torch.testing.assert_close(few.shift(change, 40), whole.shift(change, 40), atol=2e-3, rtol=2e-3)
    assert all(torch.equal(*both) for both in zip(few, invert(relation_map, 40), strict=True))


def test_a_map_kept_as_factors_reads_as_its_main_directions_do():
    relation_map = RelationMap(_decaying(300), _random(300, seed=4))
    h = _random(3, 300, seed=5)
    kept = low_rank(relation_map, 80)
    assert kept.factors.left.numel() + kept.factors.right.numel() < relation_map.weight.numel()
    whole = low_rank(relation_map, 300)
    torch.testing.assert_close(whole(h, 2.0), relation_map(h, 2.0), atol=1e-3, rtol=1e-3)
    error = (kept.linear(h) - relation_map.linear(h)).norm() / relation_map.linear(h).norm()
    assert error < 0.2


def test_random_directions_are_as_long_as_what_they_stand_for():
    shifts = _random(5, 16) * torch.arange(5)[:, None]
    drawn = random_like(shifts, seed=3)
    torch.testing.assert_close(drawn.norm(dim=-1), shifts.norm(dim=-1))
    assert torch.equal(drawn, random_like(shifts, seed=3))
    assert not torch.equal(drawn, random_like(shifts, seed=4))


@pytest.mark.parametrize(
    ("token", "target", "named"),
    [
        (" Paris", "Paris", True),
        (" par", "Paris", True),
        ("Paris!", "Paris", False),
        ("", "Paris", False),
        (" \n", "Paris", False),
        (" aris", "Paris", False),
        (" É", "école", True),
    ],
)
def test_prefix_rule(token, target, named):
    assert is_prefix(token, target) is named


def test_shuffled_hits_are_the_mean_over_other_facts_objects():
    assert shuffled_hits(["a", "b"], ["a", "b"]) == 0
    assert shuffled_hits(["a", "a", "b"], ["a", "a", "b"]) == 1.0
    assert shuffled_hits(["a", "a"], ["a", "a"]) == 2.0
    assert shuffled_hits(["a"], ["a"]) == 0


def test_the_stricter_rule_wants_the_whole_object_or_a_beginning_that_no_other_has():
    facts = [Sample(subject=str(i), object=each) for i, each in enumerate(["New York", "Paris"])]
    objects = ["New York", "New Delhi", "Paris", "Parisian"]
    assert whole_hits([" New", " Par"], facts, objects) == [False, False]
    assert whole_hits([" New Y", "paris"], facts, objects) == [True, True]
    assert whole_hits(["", " New"], facts, objects) == [False, False]
    assert whole_hits([" New"], facts[:1], ["New York", "new york", "Paris"]) == [True]


def test_recall_at_k_counts_any_of_the_k_most_probable(tiny_subject):
    finals = _random(6, 32)
    top = tiny_subject.decode(finals).topk(5).indices
    third = [tiny_subject.token_text(int(tokens[2])).strip() for tokens in top]
    rows = [place for place, text in enumerate(third) if text]
    facts = [Sample(subject=str(row), object=third[row]) for row in rows]
    found = recalled(tiny_subject, finals[rows], facts)
    assert all(found[3])
    assert all(found[5])
    assert sum(found[1]) <= sum(found[2]) <= sum(found[3])


def test_pairs_want_another_entity_another_object_and_an_unsaid_target():
    samples = [
        Sample(subject="dog", object="mammal"),
        Sample(subject="cat", object="Mammal"),
        Sample(subject="eel", object="fish"),
        Sample(subject="hen", object="bird"),
    ]
    pairs = pair_up(samples, [0, 1, 2], [" m", " m", " f", " b"], seed=0)
    assert pairs.sources == [0, 1, 2]
    assert pairs.targets[:2] == [2, 2]
    assert pairs.targets[2] in {0, 1}
    assert pair_up(samples, [0, 1], [" m", " m", "", ""], seed=0).sources == []
    said_already = pair_up(samples, [0, 2], [" fi", "", " f", ""], seed=0)
    assert said_already.sources == [2]


def test_damping_halves_the_direction_at_the_rank_and_leaves_no_direction_out():
    inverse = invert(RelationMap(_random(16, 16), torch.zeros(16)))
    along = inverse.left.T  # one change of z for each singular direction
    at_four, at_all = inverse.damped(along, [4, 16])
    plain = inverse.shift(along, 16)
    kept = at_four.norm(dim=-1) / plain.norm(dim=-1)
    assert kept[3] == pytest.approx(0.5, abs=1e-4)
    assert torch.all(kept[:3] > 0.5)
    assert torch.all((kept[4:] > 0) & (kept[4:] < 0.5))
    assert at_all.norm(dim=-1)[0] > at_four.norm(dim=-1)[0]


def test_a_zero_map_shifts_nothing_when_damped():
    empty = invert(RelationMap(torch.zeros(8, 8), torch.zeros(8)))
    assert not empty.damped(_random(2, 8), [5]).any()
