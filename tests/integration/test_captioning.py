"""Captions of real neurons; numbers in assertions are bounds, not the figures of one machine."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dragoman.tools.captioning import corpus as sampling
from dragoman.tools.captioning.corpus import sample_corpus
from dragoman.tools.captioning.describing import table_of
from dragoman.tools.captioning.tool import caption_neurons
from dragoman.tools.captioning.units import read_units
from dragoman.tools.context import ToolContext

LAYER = 12
NEURONS = [1381, 726]
"""From the draw numpy.random.default_rng(5); the first answers to ends of sentences."""
PARAGRAPHS = Path(__file__).parents[1] / "fixtures" / "paragraphs.jsonl"
"""Of our own documentation, so that no text has to be sampled."""


@pytest.fixture(scope="module")
def context(smollm2, weights_home, tmp_path_factory):
    home: Path = tmp_path_factory.mktemp("home")
    weights = weights_home / "weights"
    return ToolContext(smollm2, 0, home, home / "artifacts" / "x", home / "cache", weights=weights)


@pytest.fixture(scope="module")
def result(context):
    arguments = caption_neurons.parse(
        {"layer": LAYER, "neurons": [*NEURONS], "effort": "quick", "corpus": str(PARAGRAPHS)}
    )
    digest = context.subject.identity.digest
    experiment = caption_neurons.experiment(arguments, subject_digest=digest, seed=0)
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


@pytest.mark.weights
def test_the_subject_writes_texts_on_which_its_units_can_be_read(context, monkeypatch):
    monkeypatch.setattr(sampling, "SHARD_DOCUMENTS", 6)
    corpus = sample_corpus(context, 6, tokens=10)
    assert len(set(corpus.documents)) == 6
    assert len({each.split()[0] for each in corpus.documents if each.split()}) > 2
    table = table_of(replace(context, weights=context.home), corpus.documents)
    activations = read_units(context, corpus.documents, table, LAYER, NEURONS)
    assert activations.shape == (table.n, len(NEURONS))
    assert 40 <= table.n <= 60
    assert (activations.std(axis=0) > 0).all()
