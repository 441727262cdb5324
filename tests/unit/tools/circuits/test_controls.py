"""Controls find what they stand for, and only that."""

from functools import partial

import pytest
import torch

from dragoman.tools.circuits.approximation import Estimate, RelationMap
from dragoman.tools.circuits.controls import Part, reading_controls, strongest, twin_control
from dragoman.tools.circuits.faithfulness import decode
from dragoman.tools.circuits.selection import (
    BETAS,
    Setting,
    best_by_layer,
    choose,
    damped_ranks,
    sweep_reading,
)
from dragoman.tools.relations import Sample


@pytest.fixture
def facts(tiny_subject):
    """Residual vectors with the facts that they decode to, all objects different."""
    vectors = torch.randn(60, 32, generator=torch.Generator().manual_seed(0))
    texts = decode(tiny_subject, vectors, torch.zeros(60, dtype=torch.long)).texts
    chosen: dict[str, int] = {}
    for place, text in enumerate(texts):
        word = text.strip().casefold()
        if word.isalpha() and not any(word[0] == other[0] for other in chosen):
            chosen[word] = place
    assert len(chosen) >= 3
    places = list(chosen.values())
    samples = [Sample(subject=f"s{i}", object=word) for i, word in enumerate(chosen)]
    return vectors[places], samples


def _part(subject, samples, resid, final=None):
    """Facts that hold the same `resid` at layer 0, as z unless `final` is given, and below it."""
    first = torch.tensor([subject.first_token(sample.object) for sample in samples])
    return Part(samples, resid[None], resid, resid if final is None else final, first)


def _count(controls):
    return {control.name: control.successes for control in controls}


def _estimate(weight, bias, translation, **more):
    still = RelationMap(torch.eye(32), translation)
    return Estimate({0: RelationMap(weight, bias)}, {0: still}, **more)


def test_each_control_answers_in_its_own_way(tiny_subject, facts):
    vectors, samples = facts
    away = torch.randn(32, generator=torch.Generator().manual_seed(5))
    moved = _part(tiny_subject, samples, vectors + away, vectors)
    fitted = _estimate(
        torch.zeros(32, 32),
        vectors[1],
        -away,
        embedding=RelationMap(torch.zeros(32, 32), vectors[2]),
    )
    controls = reading_controls(
        tiny_subject,
        fitted,
        fitted.maps[0],
        [sample.object for sample in samples],
        moved,
        moved,
        others=[samples[0], samples[0], samples[1]],
    )
    counts = _count(controls)
    assert counts["translation"] == len(samples)
    assert counts["bias alone"] == 1
    assert counts["embedding map"] == 1
    assert counts["majority object"] <= 1
    assert counts["logit lens"] < len(samples)
    assert counts["shuffled relation"] == 0
    assert strongest(controls).name == "translation"


def test_the_logit_lens_reads_what_h_says(tiny_subject, facts):
    vectors, samples = facts
    part = _part(tiny_subject, samples, vectors)
    fitted = _estimate(torch.eye(32), torch.zeros(32), torch.zeros(32))
    texts = [samples[0].object] * len(samples)
    counts = _count(
        reading_controls(tiny_subject, fitted, fitted.maps[0], texts, part, part, others=[])
    )
    assert counts["logit lens"] == counts["translation"] == len(samples)
    assert counts["shuffled relation"] == pytest.approx(1.0)
    assert "majority object" not in counts
    assert "linear regression" not in counts


def test_regression_learns_from_known_estimation_and_validation_facts(tiny_subject, facts):
    vectors, samples = facts
    generator = torch.Generator().manual_seed(1)
    turn = torch.linalg.qr(torch.randn(32, 32, generator=generator)).Q
    noise = 0.01 * torch.randn(40, 32, generator=generator)
    places = torch.arange(40) % len(samples)
    learnt_final = vectors[places] + noise
    fitted = _estimate(
        torch.zeros(32, 32),
        torch.zeros(32),
        torch.zeros(32),
        entity=(learnt_final @ turn)[None],
        final=learnt_final,
    )
    part = _part(tiny_subject, samples, vectors @ turn, vectors)
    texts = [""] * len(samples)
    run = partial(reading_controls, tiny_subject, fitted, fitted.maps[0], texts, part, part, [])
    assert _count(run(learnt=range(40)))["linear regression"] == len(samples)


def test_the_twin_answers_for_itself(facts):
    _, samples = facts
    control = twin_control([samples[0].object, *["-"] * (len(samples) - 1)], samples)
    assert (control.name, control.successes) == ("random twin", 1.0)


def test_the_sweep_finds_the_layer_and_the_beta_that_read_the_objects(tiny_subject, facts):
    vectors, samples = facts
    offset = 4 * torch.randn(32, generator=torch.Generator().manual_seed(2))
    # At layer 1, h is z - offset over 3: only beta 3 brings z back. At layer 0 nothing does.
    entity = torch.stack([torch.randn(vectors.shape), (vectors - offset) / 3])
    useful = RelationMap(torch.eye(32), offset)
    useless = RelationMap(torch.zeros(32, 32), offset)
    first = torch.tensor([tiny_subject.first_token(sample.object) for sample in samples])
    seen: list[int] = []
    sweep = sweep_reading(
        tiny_subject, {0: useless, 1: useful}, entity, samples, first, seen.append
    )
    assert seen == [0, 1]
    chosen = choose(sweep)
    assert (chosen.layer, chosen.value, chosen.share) == (1, 3.0, 1.0)
    assert chosen.control_share == 0.0
    assert chosen.value in BETAS


def test_ties_go_to_the_more_probable_and_then_to_the_lower_layer():
    first = Setting(4, 1.0, 0.5, 0.0, -2.0)
    likelier = Setting(9, 1.0, 0.5, 0.0, -1.0)
    lower = likelier._replace(layer=7)
    assert choose([first, likelier]) is likelier
    assert choose([likelier, lower, first]) is lower


def test_one_fact_more_does_not_outweigh_how_probable_all_the_others_are():
    lucky = Setting(0, 5.0, 0.95, 0.0, -3.0, probability=0.4)
    sure = Setting(9, 2.0, 0.90, 0.0, -0.3, probability=0.8)
    assert choose([lucky, sure]) is sure
    # Nor does probability decide alone: a third of the facts is more than it makes up for.
    right = lucky._replace(share=1.0)
    assert choose([right, sure._replace(share=0.55)]) is right


def test_each_layer_has_its_best_setting_once():
    cut = Setting(3, 64, 0.5, 0.0, -2.0, probability=0.4)
    damped = cut._replace(share=0.6, damped=True)
    above = cut._replace(layer=6)
    assert best_by_layer([above, cut, damped]) == [damped, above]


def test_fewer_ranks_are_tried_damped():
    assert damped_ranks((8, 16, 32, 64, 96, 128, 192, 256)) == (32, 64, 96, 128, 192)
    assert damped_ranks((64,)) == (64,)
