"""Ablation on the planted subject: a fact's own neuron is found, others are not."""

import numpy as np
import pytest

from dragoman.core.records import Site
from dragoman.tools.captioning.ablation import ablate_neurons
from dragoman.tools.captioning.ablation_effects import Measured, measured
from dragoman.tools.context import ToolContext
from dragoman.tools.subjects.planted import plant

LOOKUP_LAYER = 1


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    planted = plant(0)
    home = tmp_path_factory.mktemp("ablation")
    words = [word for unit in planted.truth.units for word in unit.words]
    names = [sample.subject for sample in planted.truth.linear.samples]
    corpus = home / "texts.txt"
    corpus.write_text(
        "\n".join(
            " ".join(
                (words if k % 3 else names)[(n * 11 + k * 7) % (len(words) if k % 3 else 60)]
                for k in range(20)
            )
            for n in range(100)
        )
    )
    relations = planted.write_relations(home / "relations")
    context = ToolContext(planted.subject, 0, home, home / "artifacts", home / "cache")

    def call(**arguments):
        parsed = ablate_neurons.parse(
            {"layer": LOOKUP_LAYER, "corpus": str(corpus), "effort": "quick", **arguments}
        )
        experiment = ablate_neurons.experiment(
            parsed, subject_digest=planted.subject.identity.digest, seed=0
        )
        return ablate_neurons.run(context, experiment)

    return call, planted, context, relations


def _neuron_of(planted, name):
    """The neuron of the look-up layer that is most active at a subject's name."""
    subject, site = planted.subject, Site(layer=LOOKUP_LAYER, kind="mlp_act")
    return int(subject.activations(subject.batch([name]), [site])[site][0, -1].argmax())


def _pair(planted, sample):
    template = planted.truth.linear.prompt_templates[0]
    other = next(each for each in planted.truth.linear.objects if each != sample.object)
    return {
        "effect": "minimal_pair",
        "prompts": [template.format(sample.subject)],
        "answer": sample.object,
        "other": other,
    }


def test_the_neuron_that_holds_a_fact_is_found(lab):
    call, planted, *_ = lab
    sample = planted.truth.linear.samples[3]
    result = call(neurons=[_neuron_of(planted, sample.subject)], **_pair(planted, sample))
    assert result.status == "ok", result.error
    effect = result.measurements[0]
    assert effect.metric == "ablation_effect_pair"
    assert effect.ci95[0] > effect.baseline
    assert result.output["change"] < 0
    assert result.output["p"] == pytest.approx(0.05)
    assert len(result.output["random_sets"]) == 19
    # A unit that is drawn twice would make the rank of one in twenty too easy.
    assert len({*map(tuple, result.output["random_sets"])}) == 19
    assert effect.control == (
        "what one in twenty matched random sets of neurons of the layer exceeds"
    )
    assert result.summary.startswith("ablating 1 neuron of layer 1: ablation_effect_pair")


def test_the_neuron_of_another_fact_has_no_effect_on_it(lab):
    call, planted, *_ = lab
    mine, another = planted.truth.linear.samples[3], planted.truth.linear.samples[9]
    result = call(neurons=[_neuron_of(planted, another.subject)], **_pair(planted, mine))
    effect = result.measurements[0]
    assert not effect.ci95[0] > effect.baseline


def test_facts_are_lost_with_their_neurons(lab):
    call, planted, _, relations = lab
    neurons = sorted({_neuron_of(planted, s.subject) for s in planted.truth.linear.samples[:36]})
    result = call(neurons=neurons, effect="relation", relation=str(relations["linear"]))
    effect = result.measurements[0]
    assert effect.metric == "ablation_effect_accuracy"
    assert result.output["intact"] == 1.0
    assert effect.value > 0.3
    assert effect.n == 24
    assert effect.value == pytest.approx(-result.output["change"])


def test_a_neuron_that_writes_nothing_costs_nothing(lab):
    call, planted, *_ = lab
    down = planted.subject.anatomy.blocks[5].down_projection.weight
    norms = down.norm(dim=0)
    idle = int(norms.argmin())
    if float(norms[idle]) > 0:
        pytest.skip("every neuron of the last block writes")
    result = call(layer=5, neurons=[idle], effect="loss")
    effect = result.measurements[0]
    assert effect.metric == "ablation_effect_loss"
    assert effect.value == pytest.approx(0.0, abs=1e-6)
    assert not effect.ci95[0] > effect.baseline
    control = result.controls[0]
    assert control.metric == "ablation_effect_loss_of_random_sets"
    assert control.n == 19


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"layer": 41, "neurons": [1]}, "layer 41 is outside 0..5"),
        ({"neurons": [99]}, "neuron 99 is outside 0..79"),
        ({"neurons": [1, 1]}, "named twice"),
        (
            {"neurons": list(range(60))},
            "60 of the layer's 80 neurons leave too few to match",
        ),
        ({"neurons": [1], "effect": "relation"}, "'relation' needs argument 'relation'"),
        ({"neurons": [1], "relation": "antonyms"}, "'loss' takes no argument 'relation'"),
        (
            {"neurons": [1], "effect": "minimal_pair", "prompts": ["a"], "answer": "red"},
            "needs argument 'other'",
        ),
        (
            {
                "neurons": [1],
                "effect": "minimal_pair",
                "prompts": ["a"],
                "answer": "red",
                "other": "red",
            },
            "begin with the same token",
        ),
        ({"neurons": [1], "effect": "relation", "relation": "nonesuch"}, "nonesuch"),
    ],
)
def test_bad_arguments_are_results_that_name_them(lab, arguments, named):
    call, *_ = lab
    result = call(**arguments)
    assert result.status == "error"
    assert named in result.error


def test_the_baseline_is_what_one_in_twenty_exceeds():
    task = Measured("m", "nat", "", 1)
    random = np.arange(19.0)[:, None] * np.ones(3)
    found, p = measured(task, np.full(3, 18.5), random, 0)
    assert found.baseline == 18.0
    assert p == pytest.approx(0.05)
    _, p = measured(task, np.full(3, 9.0), random, 0)
    assert p == pytest.approx(11 / 20)
