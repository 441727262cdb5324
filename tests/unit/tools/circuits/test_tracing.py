"""Tracing, contributions, paths: identities, planted truth, predictions against interventions."""

import json

import pytest
import torch

from dragoman.core.records import Site
from dragoman.tools.circuits.contributions import (
    TOLERANCE,
    blocks_of,
    contribute,
    replace_with,
    run_both,
)
from dragoman.tools.circuits.duels import Arena, Duel, match
from dragoman.tools.circuits.paths import Path, block_name, patch_paths, paths_among, port
from dragoman.tools.circuits.study import PLANS, gather_facts
from dragoman.tools.circuits.trace_tool import trace_fact
from dragoman.tools.circuits.tracing import TRACED, by_role, put_at, random_control, trace
from dragoman.tools.context import ToolContext
from dragoman.tools.relations import Relation, Sample
from dragoman.tools.subjects.hooks import Edit
from dragoman.tools.subjects.planted import plant

ENTRY = Site(layer=0, kind="resid_pre")


def quiet(done: int, total: int, text: str) -> None:
    """Progress that nobody watches."""


def make_arena(subject, relation, n_duels=6):
    facts = gather_facts(subject, relation, PLANS["quick"], 0)
    rows = facts.known_among(facts.test)
    duels = match(facts, rows, rows, 0).duels[:n_duels]
    return Arena(subject, facts, relation.prompt_templates[0], duels)


def run_tool(subject, folder, arguments):
    experiment = trace_fact.experiment(
        trace_fact.parse(arguments), subject_digest=subject.identity.digest, seed=0
    )
    context = ToolContext(
        network=subject,
        seed=0,
        home=folder,
        artifacts=folder / "artifacts" / "one",
        cache=folder / "cache",
    )
    return trace_fact.run(context, experiment)


@pytest.fixture(scope="module")
def planted():
    return plant()


@pytest.fixture(scope="module")
def arena(planted):
    return make_arena(planted.subject, planted.truth.linear)


@pytest.fixture(scope="module")
def tiny_arena(make_tiny):
    """Two-token entities in a random network: nothing is known, everything is connected."""
    names = ["Ab", "Bo", "Cu", "Da", "Ef", "Fi", "Gu", "Ho", "Ig", "Jo", "Ku", "La"]
    relation = Relation(
        name="random",
        kind="factual",
        prompt_templates=("The capital of {} is",),
        prompt_templates_zs=("The capital of {} is",),
        samples=tuple(
            Sample(subject=name, object=("Paris", "Tokyo", "dog")[i % 3])
            for i, name in enumerate(names)
        ),
        domain_name="x",
        range_name="y",
        symmetric=False,
    )
    subject = make_tiny("llama")
    facts = gather_facts(subject, relation, PLANS["quick"], 0)
    prompts = facts.prompts
    shape = [(len(rest), at) for rest, at in zip(prompts.rests, prompts.entity_at, strict=True)]
    first = facts.first.tolist()
    duels = [
        Duel(row, other)
        for row in range(len(prompts))
        for other in range(len(prompts))
        if shape[row] == shape[other] and first[row] != first[other]
    ]
    return Arena(subject, facts, relation.prompt_templates[0], duels[:4])


def test_opponents_have_as_many_tokens_and_another_object(arena):
    facts = arena.facts
    for clean, corrupted in arena.duels:
        assert facts.first[clean] != facts.first[corrupted]
        assert len(facts.prompts.rests[clean]) == len(facts.prompts.rests[corrupted])
        assert facts.known[clean]
        assert facts.known[corrupted]
    assert match(facts, [arena.clean[0]], [arena.clean[0]], 0).n_failed == 1


@pytest.mark.parametrize("kind", TRACED)
def test_clean_into_clean_changes_nothing(tiny_arena, kind):
    arena = tiny_arena
    everyone = range(len(arena))
    before = arena.answer(arena.clean, everyone)
    for layer in range(3):
        site = Site(layer=layer, kind=kind)
        clean = arena.activations(arena.clean, [site])[site]
        at = arena.entity_end
        edit = put_at(site, at, clean[everyone, at])
        torch.testing.assert_close(arena.answer(arena.clean, everyone, [edit]), before)


def test_everything_patched_restores_all(tiny_arena):
    arena = tiny_arena
    everyone = range(len(arena))
    for layer in range(3):
        site = Site(layer=layer)
        clean = arena.activations(arena.clean, [site])[site]
        answer = arena.answer(arena.corrupted, everyone, [replace_with(site, clean)])
        torch.testing.assert_close(answer, arena.answer(arena.clean, everyone))


def test_all_blocks_and_the_embeddings_shown_to_the_logits_restore_all(tiny_arena):
    arena = tiny_arena
    blocks = blocks_of(3)
    runs = run_both(arena, [ENTRY, *blocks])
    everything = torch.stack([runs.change(site) for site in (ENTRY, *blocks)]).sum(0)
    answer = arena.answer(arena.corrupted, range(len(arena)), port(None, 3, everything))
    torch.testing.assert_close(answer, runs.low + runs.gap, atol=1e-4, rtol=1e-4)


def test_a_port_shows_its_change_to_its_receiver_alone(tiny_arena):
    arena = tiny_arena
    receiver = Site(layer=1, kind="attn_out")
    sites = [Site(layer=1, kind="resid_post"), Site(layer=0), receiver]
    before = arena.activations(arena.corrupted, sites)
    nothing = torch.zeros_like(before[sites[0]])
    after = arena.activations(arena.corrupted, sites, port(receiver, 3, nothing))
    for site in sites:
        torch.testing.assert_close(after[site], before[site])
    change = torch.randn(nothing.shape, generator=torch.Generator().manual_seed(0))
    mid = Site(layer=1, kind="resid_mid")
    told = [Edit(Site(layer=1, kind="resid_pre"), lambda resid: resid + change)]
    heard = arena.activations(arena.corrupted, [receiver], told)[receiver]
    assert not torch.allclose(heard, before[receiver])
    shown = arena.activations(arena.corrupted, [mid], port(receiver, 3, change))
    # The stream after attention: as it was, but for what attention made of the change.
    plain = arena.activations(arena.corrupted, [mid])[mid] - before[receiver]
    torch.testing.assert_close(shown[mid], plain + heard, atol=1e-4, rtol=1e-4)


def test_the_planted_layers_are_found(arena, planted):
    found = {kind: trace(arena, kind, "counterfactual", 0, quiet) for kind in TRACED}
    everyone = range(len(arena))
    resid = by_role(arena, found["resid_post"].restored, everyone)
    at_entity, at_end = (resid[role].mean(0) for role in ("last entity token", "last token"))
    answer_layer = max(planted.truth.linear_layers) + 1
    torch.testing.assert_close(at_entity[:answer_layer], torch.ones(answer_layer))
    assert float(at_entity[answer_layer:].abs().max()) < 1e-3
    assert float(at_end[:answer_layer].abs().max()) < 1e-3
    torch.testing.assert_close(at_end[answer_layer:], torch.ones(6 - answer_layer))
    mlp = by_role(arena, found["mlp_out"].restored, everyone)["last entity token"].mean(0)
    assert mlp.argmax() == min(planted.truth.linear_layers)
    attention = by_role(arena, found["attn_out"].restored, everyone)["last token"].mean(0)
    assert attention.argmax() == answer_layer
    places = [(duel, arena.entity_end[duel]) for duel in everyone]
    control = random_control(arena, found["resid_post"], 2, places, 0)
    assert abs(sum(control) / len(control)) < 0.3


def test_in_the_twin_the_entity_decides_nothing(planted):
    arena = make_arena(planted.twin, planted.truth.linear)
    found = trace(arena, "resid_post", "counterfactual", 0, quiet)
    at_entity = by_role(arena, found.restored, range(len(arena)))["last entity token"]
    assert float(at_entity.abs().max()) < 1e-3


def test_contributions_are_predicted_within_the_tolerance(arena, planted):
    found = contribute(arena, quiet)
    assert float((found.measured - found.predicted).abs().max()) <= TOLERANCE
    names = [block_name(block) for block in found.blocks]
    strong = {name for name, each in zip(names, found.measured.mean(0), strict=True) if each > 0.5}
    assert strong == {"mlp 1", "attn 4"}


def test_the_planted_path_is_the_one_that_carries(arena):
    blocks = [Site(layer=1, kind="mlp_out"), Site(layer=4, kind="attn_out")]
    other = Site(layer=2, kind="mlp_out")
    runs = run_both(arena, [ENTRY, other, *blocks])
    paths = paths_among([*blocks, other])
    assert Path(blocks[0], blocks[1]).name == "mlp 1 → attn 4"
    effects = patch_paths(arena, runs, ENTRY, paths, 0, quiet)
    mean = dict(zip([path.name for path in paths], effects.measured.mean(0).tolist(), strict=True))
    assert mean["mlp 1 → attn 4"] == pytest.approx(1, abs=1e-3)
    assert mean["attn 4 → logits"] == pytest.approx(1, abs=1e-3)
    assert mean["mlp 1 → logits"] == pytest.approx(0, abs=1e-3)
    assert mean["mlp 2 → attn 4"] == pytest.approx(0, abs=1e-3)
    assert float((effects.measured - effects.predicted).abs().max()) <= TOLERANCE


def test_the_tool_reports_layers_chosen_on_other_facts(planted, tmp_path):
    path = str(planted.write_relations(tmp_path / "relations")["linear"])
    entity = planted.truth.linear.samples
    result = run_tool(planted.subject, tmp_path, {"relation": path, "effort": "full"})
    assert result.status == "ok", result.error
    restored = {
        each.scope: each for each in result.measurements if each.metric == "effect_restored"
    }
    assert restored["resid_post 0, last entity token"].value == pytest.approx(1, abs=1e-3)
    assert restored["attn_out 4, last token"].value == pytest.approx(1, abs=1e-3)
    assert restored["mlp_out 1, last entity token"].baseline < 0.3
    assert result.output["hand_over_layer"] == 4
    assert result.measurement("path_effect").value == pytest.approx(1, abs=1e-3)
    within = result.measurement("prediction_within_tolerance", "attention and MLP blocks")
    assert within.value == 1.0
    assert within.baseline < 1.0
    document = json.loads(
        next(
            (tmp_path / each.path).read_text()
            for each in result.artifacts
            if each.name == "trace.json"
        )
    )
    assert document["resid_post_counterfactual"]["last token"][-1] == pytest.approx(1, abs=1e-3)

    known = [sample.subject for sample in entity][-1]
    told = run_tool(planted.subject, tmp_path, {"relation": path, "entity": "Nobody"}).error
    assert told is not None
    assert "'Nobody' does not occur" in told
    assert "can be traced" in told
    one = run_tool(
        planted.subject, tmp_path, {"relation": path, "entity": known, "effort": "quick"}
    )
    if one.status == "ok":
        assert one.output["fact"]["entity"] == known
        assert "fact.svg" in {each.name for each in one.artifacts}
    else:  # it was drawn as an example
        assert "is an example here" in one.error


def test_an_unknown_relation_is_told_with_the_known_ones(tiny_subject, tmp_path):
    result = run_tool(tiny_subject, tmp_path, {"relation": "country_capitol"})
    assert result.status == "error"
    assert "did you mean 'country_capital'" in result.error


def test_facts_that_are_not_known_cannot_be_traced(tiny_subject, tmp_path):
    result = run_tool(tiny_subject, tmp_path, {"relation": "country_capital", "effort": "quick"})
    assert result.status == "ok"
    assert not result.measurements
    assert "cannot be judged" in result.summary
