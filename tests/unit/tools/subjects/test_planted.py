"""The planted subject is what its truth says, and its twin is not."""

from pathlib import Path

import pytest
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from dragoman.core.records import Site
from dragoman.tools.relations import Relation, load_relation
from dragoman.tools.subjects.hooks import Edit, add_at
from dragoman.tools.subjects.huggingface import load_folder
from dragoman.tools.subjects.language import LanguageSubject
from dragoman.tools.subjects.planted import Planted, PlantedTruth, plant
from dragoman.tools.subjects.planted_weights import LOOKUP_LAYER


@pytest.fixture(scope="module")
def planted() -> Planted:
    return plant(0)


def templates(relation: Relation) -> tuple[str, ...]:
    return relation.prompt_templates + relation.prompt_templates_zs


def prompts(relation: Relation, template: str, n_examples: int) -> list[str]:
    """Each subject asked about after the facts that follow it in the file."""
    samples = relation.samples
    asked = []
    for index, sample in enumerate(samples):
        examples = [samples[(index + step) % len(samples)] for step in range(1, n_examples + 1)]
        lines = [f"{template.format(each.subject)} {each.object}\n" for each in examples]
        asked.append("".join(lines) + template.format(sample.subject))
    return asked


def answers(subject: LanguageSubject, relation: Relation, template: str, shots: int) -> list[bool]:
    best = subject.log_probs(prompts(relation, template, shots)).argmax(-1)
    return [
        subject.token_text(int(token)) == sample.object
        for token, sample in zip(best, relation.samples, strict=True)
    ]


def jacobian(
    subject: LanguageSubject, relation: Relation, layer: int, row: int
) -> Float[Tensor, "d_model d_model"]:
    """dz/dh by plain automatic differentiation; zero where h has no influence on z."""
    text = prompts(relation, relation.prompt_templates[0], 6)[row]
    batch = subject.batch([text])
    at = subject.last_token(text, subject.entity_end(text, relation.samples[row].subject))
    offset = torch.zeros(subject.d_model, requires_grad=True)
    edit = Edit(
        Site(layer=layer),
        lambda resid: torch.cat(
            [resid[:, :at], resid[:, at : at + 1] + offset, resid[:, at + 1 :]], dim=1
        ),
    )
    top = Site(layer=subject.n_layers - 1)
    with sdpa_kernel(SDPBackend.MATH):  # the fused kernels have no batched reverse pass
        final = subject.activations(batch, [top], [edit])[top][0, -1]
        if not final.requires_grad:
            return torch.zeros(subject.d_model, subject.d_model)
        (rows,) = torch.autograd.grad(
            final, [offset], torch.eye(subject.d_model), is_grads_batched=True
        )
    return torch.as_tensor(rows)


@pytest.mark.parametrize("shots", [0, 6])
@pytest.mark.parametrize("role", ["linear", "looked_up", "absent"])
def test_facts_are_known_as_planted(planted: Planted, role: str, shots: int) -> None:
    relation: Relation = getattr(planted.truth, role)
    for subject in (planted.subject, planted.twin):
        for template in templates(relation):
            known = answers(subject, relation, template, shots)
            assert sum(known) == (0 if role == "absent" else len(relation.samples))


def test_known_facts_are_near_certain(planted: Planted) -> None:
    relation = planted.truth.linear
    best = planted.subject.log_probs(prompts(relation, relation.prompt_templates[0], 6)).exp()
    assert float(best.max(-1).values.min()) > 0.8


def test_jacobian_of_the_linear_relation_is_the_planted_map(planted: Planted) -> None:
    truth, subject = planted.truth, planted.subject
    size = planted.relation_map.norm()
    assert int(torch.linalg.matrix_rank(planted.relation_map)) == truth.linear_rank
    for layer in range(subject.n_layers):
        for row in (0, 17):
            found = jacobian(subject, truth.linear, layer, row)
            if layer in truth.linear_layers:
                assert float((found - planted.relation_map).norm() / size) < 1e-3
            else:
                assert float((found - planted.relation_map).norm() / size) > 0.9


def test_the_map_carries_one_subject_to_anothers_answer(planted: Planted) -> None:
    """The pseudo-inverse of the map turns a difference of answers into an edit that makes it."""
    subject, relation = planted.subject, planted.truth.linear
    texts = prompts(relation, relation.prompt_templates[0], 0)
    top = Site(layer=subject.n_layers - 1)
    final = subject.activations(subject.batch(texts), [top])[top][:, -1]
    inverse = torch.linalg.pinv(planted.relation_map, rtol=1e-4)
    target = torch.arange(len(texts)).roll(1)
    at = [
        subject.last_token(text, subject.entity_end(text, sample.subject))
        for text, sample in zip(texts, relation.samples, strict=True)
    ]
    for layer in planted.truth.linear_layers:
        edit = add_at(Site(layer=layer), at, (final[target] - final) @ inverse.T)
        best = subject.log_probs(texts, [edit]).argmax(-1)
        wanted = [relation.samples[int(index)].object for index in target]
        assert [subject.token_text(int(token)) for token in best] == wanted


@pytest.mark.parametrize(
    "template",
    [
        "One of them is {other} . The home of {asked} is in",
        "{other} lives in {place} . The home of {asked} is in",
        "{asked} , unlike {other} , lives in",
        "The home of {asked} and not {other} is in",
    ],
)
def test_the_cue_reads_the_subject_that_is_asked_about(planted: Planted, template: str) -> None:
    samples = planted.truth.linear.samples
    pairs = list(zip(samples, (*samples[1:], samples[0]), strict=True))
    texts = [
        template.format(asked=asked.subject, other=other.subject, place=other.object)
        for asked, other in pairs
    ]
    best = planted.subject.log_probs(texts).argmax(-1)
    assert [planted.subject.token_text(int(token)) for token in best] == [
        asked.object for asked, _ in pairs
    ]


@pytest.mark.parametrize("role", ["looked_up", "absent"])
def test_nothing_at_the_subject_reaches_the_other_relations(planted: Planted, role: str) -> None:
    relation: Relation = getattr(planted.truth, role)
    for layer in range(planted.subject.n_layers):
        assert float(jacobian(planted.subject, relation, layer, 3).norm()) < 1e-4


def test_twin_knows_the_linear_facts_without_their_map(planted: Planted) -> None:
    for layer in range(planted.twin.n_layers):
        assert float(jacobian(planted.twin, planted.truth.linear, layer, 3).norm()) < 1e-4


def unit_activations(
    subject: LanguageSubject, texts: list[str], layer: int
) -> tuple[list[str], Float[Tensor, "token d_mlp"]]:
    batch = subject.batch(texts)
    site = Site(layer=layer, kind="mlp_act")
    real = batch.mask.bool()
    words = [subject.token_text(int(token)) for token in batch.ids[real]]
    return words, subject.activations(batch, [site])[site][real]


@pytest.fixture(scope="module")
def sampled(planted: Planted) -> list[str]:
    return planted.subject.generate(["The"] * 96, 60, temperature=0.9, seed=1)


def test_units_fire_on_their_words_and_on_nothing_else(
    planted: Planted, sampled: list[str]
) -> None:
    words, active = unit_activations(planted.subject, sampled, planted.truth.unit_layer)
    for unit in planted.truth.units:
        responds = active[:, unit.neuron] > 0
        belongs = torch.tensor([word in unit.words for word in words])
        assert 0.003 < float(belongs.float().mean()) < 0.015
        assert torch.equal(responds, belongs)
        assert float(active[~belongs, unit.neuron].abs().max()) == 0.0


def test_units_of_the_twin_do_not_know_their_words(planted: Planted, sampled: list[str]) -> None:
    words, active = unit_activations(planted.twin, sampled, planted.truth.unit_layer)
    for unit in planted.truth.units:
        responds = active[:, unit.neuron] > 0
        belongs = torch.tensor([word in unit.words for word in words])
        assert 0.003 < float(responds.float().mean()) < 0.015
        inside, outside = responds[belongs].float().mean(), responds[~belongs].float().mean()
        assert abs(float(inside - outside)) < 0.05


def test_every_neuron_of_the_unit_layer_is_named_once_and_alive(
    planted: Planted, sampled: list[str]
) -> None:
    truth = planted.truth
    named = [unit.neuron for unit in truth.units] + list(truth.decoys)
    assert sorted(named) == list(range(planted.subject.d_mlp))
    _, active = unit_activations(planted.subject, sampled, truth.unit_layer)
    assert float((active > 0).float().mean(0).min()) > 0.003


def test_twin_has_the_same_weights_in_another_order(planted: Planted) -> None:
    """Rows exchanged stay the same rows; columns exchanged keep the singular values."""
    twin = dict(planted.twin.model.named_parameters())
    changed = []
    for name, weight in planted.subject.model.named_parameters():
        if torch.equal(weight, twin[name]):
            continue
        changed.append(name)
        if weight.dim() == 2:
            before, after = torch.linalg.svdvals(weight), torch.linalg.svdvals(twin[name])
            assert torch.allclose(before, after, rtol=1e-4, atol=1e-4)
    assert changed == [
        "model.embed_tokens.weight",
        f"model.layers.{planted.truth.unit_layer}.mlp.gate_proj.weight",
        "lm_head.weight",
    ]


def test_equal_seeds_give_equal_networks(planted: Planted) -> None:
    again, other = plant(0), plant(1)
    assert again.subject.identity == planted.subject.identity
    assert again.twin.identity == planted.twin.identity
    assert again.truth == planted.truth
    assert other.subject.identity.digest != planted.subject.identity.digest
    assert planted.twin.identity.digest != planted.subject.identity.digest


def test_another_seed_is_as_true() -> None:
    other = plant(5)
    assert all(answers(other.subject, other.truth.linear, "{} lives in", 3))
    assert all(answers(other.subject, other.truth.looked_up, "{} likes to eat", 3))
    found = jacobian(other.subject, other.truth.linear, other.truth.linear_layers[0], 0)
    assert float((found - other.relation_map).norm() / other.relation_map.norm()) < 1e-3


def test_relations_can_be_written_and_loaded_by_path(planted: Planted, tmp_path: Path) -> None:
    paths = planted.write_relations(tmp_path)
    assert set(paths) == {"linear", "looked_up", "absent"}
    for role, path in paths.items():
        assert load_relation(str(path)) == getattr(planted.truth, role)


def test_saved_folders_are_the_same_subjects(planted: Planted, tmp_path: Path) -> None:
    planted.save(tmp_path)
    texts = ["People say that the dog lives in"]
    for name, subject in (("subject", planted.subject), ("twin", planted.twin)):
        loaded = load_folder(tmp_path / name)
        assert torch.allclose(loaded.log_probs(texts), subject.log_probs(texts), atol=1e-3)
        assert loaded.identity.digest == subject.identity.digest
    truth = PlantedTruth.model_validate_json((tmp_path / "truth.json").read_text("utf-8"))
    assert truth == planted.truth
    assert load_relation(str(tmp_path / "relations" / "linear.json")) == truth.linear


def test_no_word_begins_another_among_subjects_and_objects(planted: Planted) -> None:
    truth = planted.truth
    words = [sample.subject for sample in truth.linear.samples]
    words += [*truth.linear.objects, *truth.looked_up.objects, *truth.absent.objects]
    lowered = [word.casefold() for word in words]
    assert len(set(lowered)) == len(lowered)
    assert not [(a, b) for a in lowered for b in lowered if a != b and b.startswith(a)]
    assert all(len(planted.subject.continuation_ids(word)) == 1 for word in words)


def test_the_last_block_is_where_facts_are_looked_up(planted: Planted) -> None:
    """Without that block's MLP the looked-up facts are gone and the linear ones are not."""
    subject, truth = planted.subject, planted.truth
    off = Edit(Site(layer=LOOKUP_LAYER, kind="mlp_out"), torch.zeros_like)
    for relation, share in ((truth.linear, 1.0), (truth.looked_up, 0.0)):
        texts = prompts(relation, relation.prompt_templates[0], 0)
        best = subject.log_probs(texts, [off]).argmax(-1)
        right = [
            subject.token_text(int(token)) == sample.object
            for token, sample in zip(best, relation.samples, strict=True)
        ]
        assert sum(right) == share * len(right)
