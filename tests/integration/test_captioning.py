"""Captions of real neurons; numbers in assertions are bounds, not the figures of one machine."""

from pathlib import Path

import numpy as np
import pytest

from dragoman.tools.captioning import tool as captioning
from dragoman.tools.captioning.tool import caption_neurons
from dragoman.tools.context import ToolContext

LAYER = 12
NEURONS = [1381, 726, 1215, 1064]
"""From the draw numpy.random.default_rng(5); the first answers to line breaks."""


@pytest.fixture(scope="module")
def result(smollm2, tmp_path_factory):
    home: Path = tmp_path_factory.mktemp("home")
    context = ToolContext(smollm2, 0, home, home / "artifacts" / "x", home / "cache")
    arguments = caption_neurons.parse({"layer": LAYER, "neurons": [*NEURONS], "effort": "quick"})
    experiment = caption_neurons.experiment(
        arguments, subject_digest=smollm2.identity.digest, seed=0
    )
    # Half the texts of a quick run: sampling them is nearly all that this takes.
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(captioning.DOCUMENTS, "quick", 100)
        return caption_neurons.run(context, experiment)


@pytest.mark.weights
def test_a_neuron_of_the_default_subject_gets_a_caption_that_beats_its_floor(result):
    assert result.status == "ok", result.error
    captioned = [entry for entry in result.output["captions"] if entry["caption"] is not None]
    assert captioned, [entry.get("best_rejected") for entry in result.output["captions"]]
    for entry in captioned:
        measurement = result.measurement("detection", f"unit {entry['unit']}")
        assert measurement.ci95[0] > measurement.baseline
        assert measurement.n >= 20


@pytest.mark.weights
def test_the_floor_of_shuffled_captions_is_near_chance(result):
    floors = [each.baseline for each in result.measurements if each.metric == "detection"]
    assert len(floors) == len(NEURONS)
    assert 0.4 < float(np.mean(floors)) < 0.6


@pytest.mark.weights
def test_every_exemplar_exceeds_the_units_own_threshold(result):
    for entry in result.output["captions"]:
        assert entry["exemplars"]
        assert all(each["activation"] > entry["threshold"] for each in entry["exemplars"])
