"""`ablate_neurons` of heads, components of the stream and latents."""

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from dragoman.tools.captioning import search as searching
from dragoman.tools.captioning.ablation import ablate_neurons
from dragoman.tools.captioning.atlas import Atlas
from dragoman.tools.captioning.dictionaries import load_dictionary
from dragoman.tools.captioning.rows import RowKind, row_of_entry
from dragoman.tools.context import ToolContext


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("ablation")


@pytest.fixture(scope="module")
def call(head_lab, home):
    corpus = home / "texts.txt"
    corpus.write_text("\n".join(head_lab.documents[:100]))
    context = ToolContext(head_lab.subject, 0, home, home / "artifacts", home / "cache")

    def run(**arguments):
        parsed = ablate_neurons.parse(
            {"layer": head_lab.layer, "corpus": str(corpus), "effort": "quick", **arguments}
        )
        experiment = ablate_neurons.experiment(
            parsed, subject_digest=head_lab.subject.identity.digest, seed=0
        )
        return ablate_neurons.run(context, experiment)

    return run


@pytest.fixture(scope="module")
def dictionary(head_lab, home):
    """Latents that are the components of the stream and their negatives."""
    path = home / "sae.safetensors"
    one = torch.eye(64)
    encoder = torch.cat([one, -one], dim=1)
    save_file(
        {
            "W_enc": encoder,
            "W_dec": encoder.T.contiguous(),
            "b_enc": torch.zeros(128),
            "b_dec": torch.zeros(64),
        },
        path,
    )
    return str(path)


def _pair(head_lab):
    return {
        "kind": "head",
        "ablation": "zero",
        "effect": "minimal_pair",
        "prompts": [" ".join(text.split()[:12]) for text in head_lab.documents[:30]],
        "answer": head_lab.promoted[0],
        "other": "dog",
    }


def test_the_head_that_promotes_an_answer_is_found(call, head_lab):
    result = call(neurons=[head_lab.head], **_pair(head_lab))
    assert result.status == "ok", result.error
    effect = result.measurements[0]
    assert result.output["change"] < 0
    assert result.output["p"] == pytest.approx(0.05)
    assert effect.ci95[0] > effect.baseline
    assert (
        effect.control == "what one in twenty matched random sets of heads of layers 1 to 3 exceeds"
    )
    assert result.summary.startswith("ablating 1 head of layer 2: ablation_effect_pair")
    assert result.caveats[0].startswith("The heads are switched off in one layer")
    names = [name for (name,) in result.output["random_sets"]]
    assert len({*names}) == 19
    assert {name.rpartition(".")[0] for name in names} == {"head.1", "head.2", "head.3"}


def test_other_heads_have_no_say_in_it(call, head_lab):
    found = [call(neurons=[head], **_pair(head_lab)) for head in range(8) if head != head_lab.head]
    called = [each.measurements[0].ci95[0] > each.measurements[0].baseline for each in found]
    assert sum(called) <= 1


@pytest.mark.parametrize("ablation", ["mean", "zero"])
@pytest.mark.parametrize(("kind", "named"), [("resid", "components"), ("latent", "latents")])
def test_components_and_latents_are_ablated_too(call, dictionary, kind, named, ablation):
    given = {"dictionary": dictionary} if kind == "latent" else {}
    result = call(neurons=[3, 8], kind=kind, ablation=ablation, **given)
    assert result.status == "ok", result.error
    assert result.output["kind"] == kind
    assert result.summary.startswith(f"ablating 2 {named} of layer 2: ablation_effect_loss")
    assert f"{named} of the layer exceeds" in result.measurements[0].control
    assert all(isinstance(unit, int) for each in result.output["random_sets"] for unit in each)


def test_latents_that_are_components_do_what_these_do(call, dictionary):
    latents = call(neurons=[3, 67], kind="latent", dictionary=dictionary, ablation="zero")
    component = call(neurons=[3], kind="resid", ablation="zero")
    assert latents.output["change"] == pytest.approx(component.output["change"], abs=1e-5)
    assert abs(component.output["change"]) > 1e-4


def _embed(texts):
    """Cities lie in a direction of their own, other words each somewhere else."""
    vectors = [
        [1.0, 0, 0] if "cities" in text else [0, *_turned(sum(map(ord, text)))] for text in texts
    ]
    return [[float(each) for each in vector] for vector in vectors]


def _turned(angle):
    return math.cos(angle), math.sin(angle)


def test_units_found_by_a_concept_are_of_the_kind_that_is_asked_for(
    call, head_lab, home, monkeypatch
):
    monkeypatch.setattr(searching, "_embedder", lambda context: _embed)
    captioned: dict[RowKind, int] = {"head": 5, "resid": 6}
    rows = [
        row_of_entry(kind, 2, unit, {"caption": "names of cities", "senses": []}, (), ())
        for kind, unit in captioned.items()
    ]
    Atlas(home, head_lab.subject.identity.digest).store("run", rows)
    assert call(concept="cities", kind="head").output["neurons"] == [5]
    assert call(concept="cities", kind="resid").output["neurons"] == [6]
    assert "of 1 head of layer 2 whose captions are stored none is near" in str(
        call(concept="rivers", kind="head").error
    )


def test_latents_found_by_a_concept_are_of_the_autoencoder_that_is_asked_for(
    call, head_lab, home, dictionary, monkeypatch
):
    monkeypatch.setattr(searching, "_embedder", lambda context: _embed)
    name = load_dictionary(Path(dictionary), head_lab.layer).short_digest
    owners = {7: name, 9: "another", 11: ""}
    rows = [
        row_of_entry(
            "latent", 2, unit, {"caption": "names of cities"}, (), (), dictionary=owners[unit]
        )
        for unit in owners
    ]
    Atlas(home, head_lab.subject.identity.digest).store("latents", rows)
    found = call(concept="cities", kind="latent", dictionary=dictionary)
    assert found.output["neurons"] == [7]
    assert len(name) == 12


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"kind": "head", "neurons": [8]}, "head 8 is outside 0..7 of head.2"),
        ({"kind": "head", "neurons": [1, 1]}, "heads: 1 is named twice"),
        ({"kind": "resid", "neurons": [64]}, "component 64 is outside 0..63"),
        ({"kind": "head", "neurons": [1], "dictionary": "x"}, "only latents have one"),
        ({"kind": "latent", "neurons": [1]}, "dictionary: latents need the safetensors file"),
        ({"kind": "resid", "neurons": [*range(40)]}, "leave too few to match"),
    ],
)
def test_bad_arguments_are_results_that_name_them(head_lab, call, arguments, named):
    result = call(**arguments)
    assert result.status == "error"
    assert named in result.error


def test_latents_out_of_range_are_named(call, dictionary):
    result = call(neurons=[128], kind="latent", dictionary=dictionary)
    assert "latent 128 is outside 0..127" in result.error
    result = call(layer=41, neurons=[1], kind="latent", dictionary=dictionary)
    assert "layer 41 is outside 0..3" in result.error
