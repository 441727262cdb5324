"""The whole examination through `caption_neurons`: scores, the random twin, what a unit causes."""

from dataclasses import replace

import numpy as np
import pytest

from dragoman.tools.captioning import bar as bars
from dragoman.tools.captioning import twin as twins
from dragoman.tools.captioning.bar import Bar
from dragoman.tools.captioning.bench import lay_out
from dragoman.tools.captioning.corpus import read_corpus
from dragoman.tools.captioning.entries import BELOW_TWIN
from dragoman.tools.captioning.examination import NO_TWIN
from dragoman.tools.captioning.tool import caption_neurons
from dragoman.tools.captioning.units import UnitLayer, read_units
from dragoman.tools.context import ToolContext

NEURONS = [3, 7, 11]


@pytest.fixture(scope="module")
def corpus_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("corpus") / "texts.txt"
    names = ["France", "Japan", "a dog", "an animal", "Paris", "Tokyo"]
    path.write_text(
        "\n".join(
            f"The capital of {names[n % 6]} is {names[(n * 5 + 1) % 6]}, {n} said. A dog is "
            f"{names[(n // 6) % 6]}. The {names[(n * 7) % 6]} of {n * 13 % 97} is here, said a dog."
            for n in range(90)
        )
    )
    return path


@pytest.fixture(scope="module")
def context(make_tiny, tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    return ToolContext(make_tiny(), 0, home, home / "artifacts", home / "cache")


def _run(context, corpus_file, **arguments):
    parsed = caption_neurons.parse(
        {"layer": 1, "neurons": [*NEURONS], "corpus": str(corpus_file), **arguments}
    )
    experiment = caption_neurons.experiment(
        parsed, subject_digest=context.subject.identity.digest, seed=0
    )
    result = caption_neurons.run(context, experiment)
    assert result.status == "ok", result.error
    return result


@pytest.fixture(scope="module")
def full(context, corpus_file):
    return _run(context, corpus_file, effort="full")


@pytest.fixture(scope="module")
def quick(context, corpus_file):
    return _run(context, corpus_file, effort="quick")


def test_each_score_stands_beside_its_floor_and_the_random_twin(full):
    entries = [entry for entry in full.output["captions"] if "scores" in entry]
    assert entries
    for entry in entries:
        scope = f"unit {entry['unit']}"
        own = {each.metric: each for each in full.measurements if each.scope == scope}
        further = {each.metric: each for each in full.controls if each.scope == scope}
        assert set(own) >= {"detection", "fuzzing", "simulation", "likelihood"}
        assert set(further) >= {"detection_hard", "fuzzing_hard"}
        for metric, measurement in own.items():
            assert measurement.n >= 10, metric
        if "random_twin" in entry:
            assert further["detection_random_twin"].value == pytest.approx(
                entry["random_twin"]["detection"]["value"], abs=1e-3
            )
    assert any("random_twin" in entry for entry in entries)
    assert NO_TWIN not in full.caveats


def test_a_caption_must_pass_what_captions_of_random_units_reach(full, quick):
    # The subject's own weights are random: its captions beat shuffled ones all the same.
    assert any(entry["caption"] for entry in quick.output["captions"])
    entries = [entry for entry in full.output["captions"] if "random_twin_bar" in entry]
    assert entries
    for entry in entries:
        bar, own = entry["random_twin_bar"], entry["scores"]["simulation"]["value"]
        assert bar["n"] >= 12
        assert bar["passed"] == (own > bar["simulation"])
        assert entry["caption"] is None or bar["passed"]
    assert not any(entry["caption"] for entry in entries)
    assert any(entry["reason"] == BELOW_TWIN for entry in entries)


def test_the_bar_of_a_layer_is_kept_whichever_units_are_asked_for(
    full, context, corpus_file, monkeypatch
):
    shown = next(entry for entry in full.output["captions"] if "random_twin_bar" in entry)
    corpus = read_corpus(corpus_file, context.subject.tokenizer, 90)
    bench = lay_out(context, UnitLayer(layer=1), [20], [21], corpus)
    counted = []

    def counting(context, bench, *, pmi):
        counted.append(pmi)
        return Bar({"simulation": 0.1}, {"simulation": 0.0}, 12)

    monkeypatch.setattr(bars, "_counted", counting)

    def n_of(context, bench, **options):
        found = bars.random_bar(context, bench, **options)
        assert found is not None
        return found.n

    kept = bars.random_bar(context, bench)
    assert kept is not None
    assert round(kept.values()["simulation"], 4) == shown["random_twin_bar"]["simulation"]
    assert kept.n == shown["random_twin_bar"]["n"]
    assert counted == []
    other = bench._replace(where=UnitLayer(layer=2))
    fewer = bench._replace(corpus=read_corpus(corpus_file, context.subject.tokenizer, 80))
    assert [n_of(context, asked) for asked in (other, fewer)] == [12, 12]
    n_of(replace(context, seed=1), bench)
    n_of(context, bench, pmi=False)
    assert counted == [True, True, True, False]
    for path in (context.cache / "bars").iterdir():
        path.write_text("{")
    assert [n_of(context, other), n_of(context, other)] == [12, 12]
    assert len(counted) == 5


def test_the_bar_lies_above_nearly_all_that_set_it():
    scores = [{"simulation": value} for value in np.linspace(0.2, 0.6, 40)]
    bar = Bar.of(scores)
    assert bar is not None
    assert not any(bar.passed_by(each) for each in scores)
    assert bar.passed_by({"simulation": 0.95})
    assert bar.values()["simulation"] == pytest.approx(0.68, abs=0.03)
    assert not bar.passed_by({"detection": 0.9})
    assert Bar.of(scores[:5]) is None


def test_captions_without_a_simulation_are_held_against_detection():
    bar = Bar.of([{"detection": value} for value in np.linspace(0.5, 0.7, 40)])
    assert bar is not None
    assert bar.passed_by({"detection": 0.9})
    assert not bar.passed_by({"detection": 0.7})


def test_captions_that_hold_are_checked_for_what_the_unit_causes(quick):
    for entry in quick.output["captions"]:
        effect = quick.measurement("causal_effect", f"unit {entry['unit']}")
        assert (effect is not None) == (entry["caption"] is not None and "causal" in entry)
        if effect is not None:
            assert effect.unit == "nat"
            assert effect.n >= 5
            assert entry["causal"]["n_matched"] == 20
    assert any(each.metric == "causal_effect" for each in quick.measurements)


def test_quick_says_that_no_twin_was_made(quick):
    assert NO_TWIN in quick.caveats
    assert not any(each.metric.endswith("_random_twin") for each in quick.controls)


def test_the_twins_activations_are_those_of_its_own_forward_pass_and_cached(
    context, corpus_file, monkeypatch
):
    corpus = read_corpus(corpus_file, context.subject.tokenizer, 90)
    bench = lay_out(context, UnitLayer(layer=1), NEURONS, [20, 21], corpus)
    first = twins.twin_activations(context, bench, [3, 20])
    own = read_units(context, corpus.documents, bench.table, 1, [3, 20])
    assert first.shape == own.shape
    assert not np.allclose(first, own)

    def never(*arguments):
        raise AssertionError("the twin was made again")

    monkeypatch.setattr(twins, "random_twin", never)
    assert np.array_equal(twins.twin_activations(context, bench, [20, 3]), first[:, ::-1])


def test_neighbours_are_read_beside_units_and_decoys(context, corpus_file):
    corpus = read_corpus(corpus_file, context.subject.tokenizer, 90)
    bench = lay_out(context, UnitLayer(layer=1), NEURONS, [20, 21], corpus)
    n_tokens = bench.table.n
    assert bench.neighbours.activations.shape[0] == n_tokens
    nearest = bench.scan.nearest()
    flat = sorted({unit for row in nearest for unit in row})
    expected = read_units(context, corpus.documents, bench.table, 1, flat)
    assert np.array_equal(bench.neighbours.activations, expected)
    for columns, row in zip(bench.neighbours.of, nearest, strict=True):
        assert tuple(flat[column] for column in columns) == row
