"""Concepts come from captions, classes from concepts, and the page states what was measured."""

from pathlib import Path

import numpy as np
import pytest
from torch import nn

from dragoman.core.records import Measurement, ToolSuccess
from dragoman.evals.class_ablation import (
    Outcome,
    Setting,
    classes_for,
    concepts,
    render,
)
from dragoman.tools.captioning.rows import UnitCaption
from dragoman.tools.captioning.vision.ablation import METRIC, Gallery
from dragoman.tools.captioning.vision.concepts import (
    CONCEPT,
    Colour,
    Concept,
    Not,
    Somewhere,
    Thing,
    both,
    either,
)
from dragoman.tools.captioning.vision.labels import kinds
from dragoman.tools.captioning.vision.probe import probe_images
from dragoman.tools.context import ToolContext
from dragoman.tools.subjects.efficientnet import imagenet_labels
from dragoman.tools.subjects.vision import Preprocessing
from dragoman.tools.subjects.vision_loading import make_vision

RED, GREY, CATS = Colour(name="red"), Colour(name="grey"), Thing(name="cat")


def row(unit: int, concept: Concept, caption: str | None = "said") -> UnitCaption:
    return UnitCaption(
        name=f"0.{unit}",
        kind="channel",
        layer=0,
        unit=unit,
        caption=caption,
        predicate=CONCEPT.dump_python(concept, mode="json"),
    )


def test_concepts_are_what_most_captions_say_is_there() -> None:
    rows = [
        row(0, either(RED, Somewhere(of=CATS))),
        row(1, both(CATS, Not(of=GREY))),
        row(2, both(GREY, CATS)),
        row(3, RED),
        row(4, GREY, caption=None),
        row(5, Not(of=GREY)),
    ]
    assert concepts(rows, 5) == ["cats", "red areas"]
    assert concepts(rows, 1) == ["cats"]


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> ToolContext:
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    model.append(nn.Linear(4, 1000))
    plain = Preprocessing(size=(32, 32), resize=32, mean=(0.5,) * 3, std=(0.25,) * 3)
    subject = make_vision(model, "tiny", plain, imagenet_labels())
    home: Path = tmp_path_factory.mktemp("home")
    return ToolContext(subject, 0, home, home / "a", home / "c")


def test_a_concept_is_measured_on_its_own_classes_where_pictures_show_enough_of_it(
    context: ToolContext,
) -> None:
    cats = sorted(kinds()["cat"].classes)
    classes = np.array([cats[0], cats[1], cats[0], 0, 0])
    gallery = Gallery(probe_images(0, 5), np.zeros((5, 8, 8, 3), np.uint8), classes, False, 0)
    assert classes_for("cats", gallery, context, 3) == ["cats"]
    assert classes_for("cats", gallery, context, 4) == []
    assert classes_for("grey areas", gallery, context, 1) == []


def measurement(metric: str, value: float, baseline: float) -> Measurement:
    return Measurement(
        metric=metric,
        value=value,
        unit="fraction",
        baseline=baseline,
        control="random",
        ci95=(value - 0.1, value + 0.1),
        n=40,
        n_failed=1,
        scope="cats",
    )


def test_the_page_states_effects_beside_matched_random_units() -> None:
    result = ToolSuccess(
        summary="",
        measurements=(
            measurement(METRIC, 0.5, 0.2),
            measurement("class_accuracy_without_channels", 0.5, 1.0),
        ),
        controls=(
            measurement(f"{METRIC}_of_random_sets", 0.1, 0.0),
            measurement(f"{METRIC}_of_other_classes", 0.15, 0.3),
        ),
        output={"p": 0.025},
    )
    outcomes = [Outcome("cats", (3, 7), result), Outcome("dogs", (), None)]
    page = render(Setting(), [row(0, RED), row(1, GREY, None)], outcomes, "Made by this.")
    assert (
        "| cats | 2 | cats | 0.50 [0.40, 0.60] | 0.50 [0.40, 0.60] | 0.20, 0.10 | 0.025 | "
        "0.15 [0.05, 0.25] | 0.30 | 40 | 1 |" in page
    )
    assert "| dogs | 0 | | no caption is near it |" in page
    assert "1 of 1 concepts lose more than their bar" in page
    assert "2 units of layer 17" in page
    assert "1 captions beat their floor" in page
