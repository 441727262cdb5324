import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from dragoman.tools.captioning.corpora import FilePart
from dragoman.tools.captioning.find import find_exemplars
from dragoman.tools.context import ToolContext


@pytest.fixture(scope="module")
def corpus_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("corpus") / "texts.txt"
    names = ["France", "Japan", "a dog", "an animal", "Paris", "Tokyo"]
    path.write_text(
        "\n".join(f"The {names[n % 6]} of {names[n * 5 % 6]}, {n} said." * 2 for n in range(60))
    )
    return str(path)


@pytest.fixture
def run(make_tiny, tmp_path, corpus_file):
    def call(subject=None, progress=lambda done, total, text: None, **arguments):
        subject = subject or make_tiny()
        context = ToolContext(
            subject, 0, tmp_path, tmp_path / "artifacts", tmp_path / "cache", progress=progress
        )
        parsed = find_exemplars.parse({"corpus": corpus_file, "layer": 1, **arguments})
        experiment = find_exemplars.experiment(
            parsed, subject_digest=subject.identity.digest, seed=0
        )
        return find_exemplars.run(context, experiment)

    return call


def test_each_unit_has_its_contexts_with_the_peak_marked(run, tmp_path, corpus_file):
    result = run(units=[3, 40])
    assert result.status == "ok", result.error
    lines = Path(corpus_file).read_text().splitlines()
    stored = json.loads((tmp_path / result.artifacts[0].path).read_text())
    assert [entry["unit"] for entry in stored["units"]] == ["mlp.1.3", "mlp.1.40"]
    for entry, brief in zip(stored["units"], result.output["units"], strict=True):
        assert len(entry["exemplars"]) == 15
        assert brief["exemplars"] == entry["exemplars"][:5]
        assert len({each["document"] for each in entry["exemplars"]}) == 15
        strengths = [each["activation"] for each in entry["exemplars"]]
        assert strengths == sorted(strengths, reverse=True)
        assert strengths[0] > entry["threshold"] >= 0
        for each in entry["exemplars"]:
            assert each["token"]
            around = each["before"] + each["token"] + each["after"]
            assert around in lines[each["document"]]
        for each in entry["silent"]:
            assert each["text"] in lines[each["document"]]
    density = result.measurement("activation_density", "unit mlp.1.3")
    assert density.value == pytest.approx(result.output["units"][0]["density"], abs=1e-4)
    assert density.n == 60


def test_asking_about_other_units_of_a_layer_runs_nothing(run, make_tiny):
    subject = make_tiny("llama", 3)
    run(subject=subject, units=[1])
    made = []
    hook = subject.blocks[0].register_forward_hook(lambda *args: made.append(1))
    again = run(subject=subject, units=[2, 9])
    hook.remove()
    assert again.status == "ok"
    assert not made


def test_a_pass_has_a_total_and_a_finished_one_reads_no_text(run, make_tiny, monkeypatch):
    subject, said = make_tiny("llama", 4), []
    run(subject=subject, units=[1], progress=lambda *step: said.append(step))
    reading = [(done, total) for done, total, text in said if text.startswith("reading")]
    assert reading
    assert {total for _, total in reading} == {60}
    monkeypatch.setattr(FilePart, "texts", lambda part: pytest.fail(f"{part.path} was read"))
    assert run(subject=subject, units=[2]).status == "ok"


def test_a_dead_unit_has_no_exemplars_and_a_reason(run, make_tiny):
    subject = make_tiny("llama", 5)
    subject.model.model.layers[1].mlp.up_proj.weight.data[4] = 0
    result = run(subject=subject, units=[4, 5])
    dead, alive = result.output["units"]
    assert "dead" in dead["reason"]
    assert dead["exemplars"] == dead["silent"] == []
    assert alive["exemplars"]
    assert "1 of them dead" in result.summary


def test_latents_and_heads_are_units_too(run, tmp_path):
    path = tmp_path / "sae.safetensors"
    tensors = {"W_enc": torch.randn(32, 20), "W_dec": torch.randn(20, 32)}
    save_file(tensors, path)
    latents = run(kind="latent", units=[19], dictionary=str(path))
    assert latents.output["units"][0]["unit"] == "latent.1.19"
    assert run(kind="head", units=[3]).output["units"][0]["exemplars"]


def test_the_texts_of_a_corpus_and_not_its_name_make_the_experiment(run, tmp_path):
    path = tmp_path / "mine.txt"
    path.write_text("A dog.\nParis is here.\n")
    first = run(units=[1], corpus=str(path))
    path.write_text("A dog.\nTokyo is here.\n")
    second = run(units=[1], corpus=str(path))
    path.write_text("A dog.\nParis is here.\n")
    third = run(units=[1], corpus=str(path))
    assert first.experiment_id == third.experiment_id != second.experiment_id
    assert first.output == third.output != second.output


def test_a_sampled_corpus_is_the_default(run, monkeypatch):
    from dragoman.tools.captioning import find

    monkeypatch.setitem(find._DOCUMENTS, "quick", 6)
    result = run(units=[1], corpus=None, effort="quick")
    assert result.output["n_documents"] == 6
    assert "sampled from the subject" in result.output["corpus"]
    assert any("thresholds are rough" in caveat for caveat in result.caveats)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"units": [99]}, "neuron 99 is outside 0..47"),
        ({"units": [1, 1]}, "1 is named twice"),
        ({"units": [1], "layer": 9}, "layer 9 is outside 0..2"),
        ({"units": [1], "corpus": "nowhere.txt"}, "corpus: nowhere.txt: cannot be read"),
        ({"units": [1], "kind": "latent"}, "dictionary: latents need"),
        ({"units": [1], "dictionary": "x.safetensors"}, "dictionary: only latents have one"),
        ({"units": [1], "kind": "latent", "dictionary": "x"}, "dictionary: x: cannot be read"),
    ],
)
def test_bad_arguments_are_results_that_name_them(run, arguments, named):
    result = run(**arguments)
    assert result.status == "error"
    assert named in result.error


def test_a_bad_row_and_an_empty_corpus_are_results_that_name_them(run, tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "A dog."}\n{"text": 3}\n')
    assert "a.jsonl, line 2: no string named 'text'" in run(units=[1], corpus=str(path)).error
    path.write_text("\n\n")
    assert "the corpus is empty" in run(units=[1], corpus=str(path)).error
