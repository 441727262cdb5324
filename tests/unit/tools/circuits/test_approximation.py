"""Identities of the map, its inverse, and what is decoded."""

import pytest
import torch

from dragoman.tools.circuits.approximation import RelationMap, estimate, invert
from dragoman.tools.circuits.causality import pair_up, random_like
from dragoman.tools.circuits.faithfulness import shuffled_hits
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
