"""Ablated channels cost the answers that hang on them, matched random channels do not."""

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from dragoman.core.errors import ToolError
from dragoman.core.records import ToolResult
from dragoman.tools.captioning.ablation import ablate_neurons
from dragoman.tools.captioning.atlas import Atlas
from dragoman.tools.captioning.rows import UnitCaption
from dragoman.tools.captioning.vision.ablation import _class_numbers
from dragoman.tools.subjects.efficientnet import imagenet_labels

from .conftest import COLOURS, N_UNITS, Gallery

METRIC = "ablation_effect_class_accuracy"
GREEN = COLOURS.index("green")


def ablate(gallery: Gallery, home: Path, **arguments: Any) -> ToolResult:
    named = {"layer": 0, "effort": "quick", "images": str(gallery.folder), **arguments}
    experiment = ablate_neurons.experiment(ablate_neurons.parse(named), subject_digest="", seed=0)
    return ablate_neurons.run(gallery.context(home), experiment)


def found(result: ToolResult, metric: str = METRIC) -> Any:
    assert result.status == "ok", result.error
    return next(each for each in (*result.measurements, *result.controls) if each.metric == metric)


def test_the_unit_that_names_a_class_costs_that_class_alone(
    gallery: Gallery, tmp_path: Path
) -> None:
    result = ablate(gallery, tmp_path, neurons=[GREEN], classes=["green"])
    effect = found(result)
    assert effect.value == 1.0
    assert effect.ci95[0] > effect.baseline
    # A channel's only likes are the other channels of its layer, each of them once.
    others = [unit for unit in range(N_UNITS) if unit != GREEN]
    sets: Any = result.output["random_sets"]
    assert sorted(sets) == [[unit] for unit in others]
    assert result.output["p"] == 1 / N_UNITS
    assert any(f"gives {len(others)} different random sets" in each for each in result.caveats)
    assert found(result, f"{METRIC}_of_other_classes").value == 0.0
    accuracy = found(result, "class_accuracy_without_channels")
    assert (accuracy.value, accuracy.baseline) == (0.0, 1.0)
    assert effect.n_failed == 1
    assert any("its own answers" in caveat for caveat in result.caveats)


def test_a_unit_that_nothing_hangs_on_costs_nothing(gallery: Gallery, tmp_path: Path) -> None:
    effect = found(ablate(gallery, tmp_path, neurons=[N_UNITS - 1]))
    assert effect.value == 0.0
    assert effect.ci95[0] <= effect.baseline


def test_folders_say_which_answers_are_right(gallery: Gallery, tmp_path: Path) -> None:
    for number, scene in enumerate(gallery.scenes):
        coloured = tmp_path / "images" / scene.objects[0].colour
        coloured.mkdir(parents=True, exist_ok=True)
        shutil.copy(gallery.folder / f"{number:02}.png", coloured)
    folder = str(tmp_path / "images")
    result = ablate(gallery, tmp_path, neurons=[GREEN], images=folder, classes=["green"])
    assert result.output["right_answers"] == "labels of the folder"
    accuracy = found(result, "class_accuracy_without_channels")
    # Two objects a scene, of which the first names the folder and the larger colour the answer.
    assert 0.2 < accuracy.baseline < 0.95
    assert accuracy.value == 0.0


def test_units_are_found_by_their_captions(
    gallery: Gallery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [
        UnitCaption(name=f"0.{unit}", kind="channel", layer=0, unit=unit, caption=caption)
        for unit, caption in ((GREEN, "green areas"), (1, "vertical stripes"))
    ]
    words = {
        "green areas": [1.0, 0.0],
        "vertical stripes": [0.0, 1.0],
        "green things": [0.995, 0.1],
    }

    def embed(texts: list[str]) -> list[list[float]]:
        return [words.get(text, [0.0, 0.0]) for text in texts]

    monkeypatch.setattr("dragoman.tools.captioning.search._embedder", lambda context: embed)
    Atlas(tmp_path, gallery.subject.identity.digest).store("test", rows)
    result = ablate(gallery, tmp_path, concept="green things", classes=["green"])
    assert result.output["neurons"] == [GREEN]
    assert found(result).value == 1.0
    nowhere = ablate(gallery, tmp_path, concept="zebras", classes=["green"])
    assert "of 2 units of layer 0 whose captions are stored none is near it" in str(nowhere.error)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"neurons": [N_UNITS]}, f"unit {N_UNITS} is outside 0..{N_UNITS - 1} of layer 0"),
        ({}, "neurons, concept: give one of them"),
        ({"neurons": [0], "classes": ["mauve"]}, "'mauve' is no class of subject 'colours'"),
        ({"neurons": [0], "effect": "loss"}, "the effect is class_accuracy"),
        ({"neurons": [0], "relation": "x"}, "leave relation out"),
        ({"neurons": [0], "kind": "head"}, "leave kind out"),
        ({"neurons": [0], "dictionary": "x"}, "leave dictionary out"),
        ({"neurons": list(range(9))}, "leave none to match"),
    ],
)
def test_a_bad_argument_is_named(
    gallery: Gallery, tmp_path: Path, arguments: dict[str, Any], told: str
) -> None:
    result = ablate(gallery, tmp_path, **arguments)
    assert result.status == "error"
    assert told in str(result.error)


def test_kinds_of_things_stand_for_their_classes() -> None:
    labels = imagenet_labels()
    own = SimpleNamespace(labels=labels, n_classes=1000, identity=SimpleNamespace(name="own"))
    cats = _class_numbers(cast(Any, own), "cats")
    assert {labels[number].split(",")[0] for number in cats} >= {"tabby", "Egyptian cat"}
    assert _class_numbers(cast(Any, own), "tabby") == [labels.index("tabby")]
    few = SimpleNamespace(
        labels=("house", "Egyptian cat"), n_classes=2, identity=SimpleNamespace(name="few")
    )
    assert _class_numbers(cast(Any, few), "cats") == [1]
    with pytest.raises(ToolError, match="'dogs' is no class of subject 'few'"):
        _class_numbers(cast(Any, few), "dogs")
