"""Identities that every family owes: hooks, padding, edits, generation."""

from typing import Any

import pytest
import torch

from dragoman.core.errors import ToolError
from dragoman.core.records import Site
from dragoman.tools.subjects.hooks import Edit, add_at

SHORT, LONG = "A dog", "The capital of France is"
TENSOR_SITES = ("resid_pre", "resid_post", "attn_z", "attn_out", "mlp_out", "mlp_act")


def test_decoding_the_last_block_gives_the_logits(any_tiny: Any) -> None:
    batch = any_tiny.batch([LONG])
    site = Site(layer=any_tiny.n_layers - 1)
    resid = any_tiny.activations(batch, [site])[site]
    torch.testing.assert_close(any_tiny.decode(resid), any_tiny.all_logits(batch))


def test_left_padding_does_not_change_the_logits(any_tiny: Any) -> None:
    together = any_tiny.log_probs([SHORT, LONG])
    alone = torch.cat([any_tiny.log_probs([SHORT]), any_tiny.log_probs([LONG])])
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-4)


def test_residual_stream_adds_up(any_tiny: Any) -> None:
    kinds = ("resid_pre", "attn_out", "mlp_out", "resid_post")
    sites = [Site(layer=1, kind=kind) for kind in kinds]
    pre, attn, mlp, post = any_tiny.activations(any_tiny.batch([LONG]), sites).values()
    torch.testing.assert_close(pre + attn + mlp.view(pre.shape), post, atol=1e-4, rtol=1e-4)


def test_mlp_neurons_project_to_what_the_mlp_adds(any_tiny: Any) -> None:
    act_site, out_site = Site(layer=2, kind="mlp_act"), Site(layer=2, kind="mlp_out")
    taken = any_tiny.activations(any_tiny.batch([LONG]), [act_site, out_site])
    assert taken[act_site].shape[-1] == any_tiny.d_mlp
    projected = any_tiny.anatomy.blocks[2].down_projection(taken[act_site])
    torch.testing.assert_close(projected.view(taken[out_site].shape), taken[out_site])


def test_what_the_heads_found_projects_to_what_attention_adds(any_tiny: Any) -> None:
    z_site, out_site = Site(layer=1, kind="attn_z"), Site(layer=1, kind="attn_out")
    taken = any_tiny.activations(any_tiny.batch([LONG]), [z_site, out_site])
    assert taken[z_site].shape[-1] == any_tiny.site_width(z_site)
    projected = any_tiny.anatomy.blocks[1].attention_projection(taken[z_site])
    torch.testing.assert_close(projected, taken[out_site])


@pytest.mark.parametrize("kind", TENSOR_SITES)
def test_an_edit_that_changes_nothing_changes_nothing(any_tiny: Any, kind: Any) -> None:
    batch = any_tiny.batch([LONG, SHORT])
    edit = Edit(Site(layer=1, kind=kind), lambda activations: activations.clone())
    assert torch.equal(any_tiny.logits(batch, [edit]), any_tiny.logits(batch))


@pytest.mark.parametrize("kind", TENSOR_SITES)
def test_an_edit_changes_later_logits_and_is_seen_by_capture(any_tiny: Any, kind: Any) -> None:
    site = Site(layer=1, kind=kind)
    width = any_tiny.site_width(site)
    batch = any_tiny.batch([LONG])
    shift = torch.full((1, width), 3.0) * torch.linspace(-1, 1, width)
    edit = add_at(site, [-1], shift)
    before = any_tiny.activations(batch, [site])[site]
    after = any_tiny.activations(batch, [site], [edit])[site]
    torch.testing.assert_close(after[:, -1], before[:, -1] + shift)
    torch.testing.assert_close(after[:, :-1], before[:, :-1])
    moved = any_tiny.all_logits(batch, [edit]) - any_tiny.all_logits(batch)
    assert moved[:, -1].abs().max() > 1e-3
    assert torch.equal(moved[:, :-1], torch.zeros_like(moved[:, :-1]))


def test_resid_mid_is_what_the_mlp_reads(make_tiny: Any) -> None:
    subject = make_tiny("llama")
    mid, pre, attn = (Site(layer=1, kind=kind) for kind in ("resid_mid", "resid_pre", "attn_out"))
    taken = subject.activations(subject.batch([LONG]), [mid, pre, attn])
    torch.testing.assert_close(taken[mid], taken[pre] + taken[attn])


def test_resid_mid_of_a_parallel_block_is_refused(make_tiny: Any) -> None:
    subject = make_tiny("gpt_neox")
    with pytest.raises(ToolError, match="parallel"):
        subject.activations(subject.batch([LONG]), [Site(layer=0, kind="resid_mid")])


def test_hooks_are_gone_after_an_error(any_tiny: Any) -> None:
    def fail(activations: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("deliberate")

    batch = any_tiny.batch([LONG])
    before = any_tiny.logits(batch)
    with pytest.raises(RuntimeError, match="deliberate"):
        any_tiny.logits(batch, [Edit(Site(layer=0), fail)])
    assert torch.equal(any_tiny.logits(batch), before)


def test_greedy_generation_follows_the_argmax(any_tiny: Any) -> None:
    text, written = LONG, ""
    for _ in range(4):
        written += any_tiny.token_text(int(any_tiny.log_probs([text + written]).argmax()))
    assert any_tiny.generate([text], 4) == [written] or "\ufffd" in written


def test_an_edit_is_applied_in_the_prompt_pass_only(tiny_subject: Any) -> None:
    seen: list[int] = []

    def count(activations: torch.Tensor) -> torch.Tensor:
        seen.append(activations.shape[1])
        return activations

    tiny_subject.generate([LONG], 5, edits=[Edit(Site(layer=0), count)])
    assert seen == [tiny_subject.batch([LONG]).ids.shape[1]]


def test_sampling_repeats_with_its_seed_and_varies_without(tiny_subject: Any) -> None:
    def sampled(seed: int) -> list[str]:
        written: list[str] = tiny_subject.generate([LONG], 12, temperature=1.0, seed=seed)
        return written

    assert sampled(1) == sampled(1)
    assert sampled(1) != sampled(2)


def test_token_positions_count_from_the_end(tiny_subject: Any) -> None:
    text = "The capital of France is"
    position = tiny_subject.last_token(text, tiny_subject.entity_end(text, "France"))
    ids = tiny_subject.batch([text, text + " Paris and Tokyo"]).ids
    assert tiny_subject.token_text(int(ids[0, position])).strip() == "France"


def test_the_last_occurrence_is_the_default(tiny_subject: Any) -> None:
    text = "France. The capital of France"
    assert tiny_subject.entity_end(text, "France") == len(text)
    assert tiny_subject.entity_end(text, "France", "first") == len("France")


def test_missing_entity_is_named(tiny_subject: Any) -> None:
    with pytest.raises(ToolError, match="'Peru' does not occur"):
        tiny_subject.entity_end(LONG, "Peru")


@pytest.mark.parametrize("layer", [-1, 3, 41])
def test_a_layer_outside_names_the_range(tiny_subject: Any, layer: int) -> None:
    with pytest.raises(
        ToolError, match=rf"layer {layer} is outside 0\.\.2 of subject 'tiny llama'"
    ):
        tiny_subject.check_layer(layer)


def test_an_overlong_prompt_is_refused(tiny_subject: Any) -> None:
    with pytest.raises(ToolError, match="longer than the subject's 256"):
        tiny_subject.batch(["xyzw " * 300])


def test_the_digest_follows_the_weights(make_tiny: Any) -> None:
    first, second = make_tiny("llama"), make_tiny("llama")
    assert first.identity == second.identity
    second.model.lm_head.weight.data[0, 0] += 1e-6
    changed = type(second)(second.model, second.tokenizer, "tiny llama")
    assert changed.identity.digest != first.identity.digest


@pytest.mark.weights
def test_the_default_subject_knows_the_capital_of_france(smollm2: Any) -> None:
    (best, *_), *_ = smollm2.next_tokens(["The capital of France is"], 3)
    assert best.token == " Paris"
    assert best.probability > 0.6
    identity = smollm2.identity
    assert (identity.n_layers, identity.d_model, identity.d_mlp) == (30, 576, 1536)
