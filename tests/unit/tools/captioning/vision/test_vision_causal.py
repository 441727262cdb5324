"""What a vision unit causes: one that an answer hangs on is found, one of no account is not."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dragoman.tools.captioning.atlas import Atlas
from dragoman.tools.captioning.tool import caption_neurons
from dragoman.tools.captioning.vision.bench import VisionBench, lay_out
from dragoman.tools.captioning.vision.causal import VisionCausalCheck, named
from dragoman.tools.captioning.vision.concepts import (
    Colour,
    Not,
    Object,
    OfClass,
    Somewhere,
    Thing,
    both,
)
from dragoman.tools.captioning.vision.describing import choose_all
from dragoman.tools.captioning.vision.image_words import image_words
from dragoman.tools.captioning.vision.labels import kinds
from dragoman.tools.captioning.vision.scores import assess_bench

from .conftest import COLOURS, N_UNITS, Gallery

GREEN = COLOURS.index("green")
IDLE = N_UNITS - 1
"""No class hangs on it."""


@pytest.fixture(scope="module")
def bench(gallery: Gallery) -> VisionBench:
    context = gallery.context(gallery.home)
    return lay_out(context, 0, [GREEN, IDLE], gallery.images, n_decoys=6, twin=False)


def test_a_unit_that_an_answer_hangs_on_is_a_cause(
    gallery: Gallery, bench: VisionBench, tmp_path: Path
) -> None:
    check = VisionCausalCheck(gallery.context(tmp_path), bench, effort="full")
    causes = check.check(0, Colour(name="green"))
    assert causes is not None
    assert causes.output["target"] == "exemplars"  # the subject's classes are no ImageNet's
    assert causes.effect.metric == "causal_effect"
    assert causes.effect.ci95[0] > causes.effect.baseline
    told: Any = causes.output["causal_effect"]
    assert told["effect_nats"] > 0
    (raised,) = causes.controls
    assert raised.metric == "causal_effect_amplify"
    told = causes.output["causal_effect_amplify"]
    assert told["effect_nats"] > 0
    # More of the unit that an answer stands for already counts for more.
    assert raised.value > 0.5 * raised.baseline


def test_a_unit_of_no_account_is_none(gallery: Gallery, bench: VisionBench, tmp_path: Path) -> None:
    check = VisionCausalCheck(gallery.context(tmp_path), bench, effort="quick")
    causes = check.check(1, Colour(name="green"))
    if causes is not None:
        assert causes.effect.value == 0.0
        assert not causes.effect.ci95[0] > causes.effect.baseline
        assert not causes.controls


def test_taking_a_map_away_is_setting_it_to_zero(gallery: Gallery) -> None:
    subject = gallery.subject
    views = np.stack([subject.view(gallery.images.load(number)) for number in range(4)])
    pixels = subject.pixels(views)
    own = subject.maps(pixels, [0])[0][:, GREEN]
    moved = subject.moved_logits(pixels, 0, GREEN, -own)
    assert torch.allclose(moved, subject.logits(pixels, {0: [GREEN]}), atol=1e-6)
    assert torch.equal(
        subject.moved_logits(pixels, 0, GREEN, torch.zeros_like(own)), subject.logits(pixels)
    )
    assert not torch.equal(moved, subject.logits(pixels))


def test_classes_that_a_caption_denies_are_not_named() -> None:
    cats = set(kinds()["cat"].classes)
    concept = both(Somewhere(of=Thing(name="cat")), Not(of=Thing(name="dog")))
    assert named(concept) == cats
    assert named(both(OfClass(index=3), Colour(name="red"))) == {3}
    assert named(Colour(name="red")) == set()


def test_the_tool_says_what_captioned_units_cause(gallery: Gallery, tmp_path: Path) -> None:
    arguments = caption_neurons.parse(
        {
            "layer": 0,
            "neurons": [GREEN],
            "images": str(gallery.folder),
            "effort": "quick",
        }
    )
    experiment = caption_neurons.experiment(arguments, subject_digest="", seed=0)
    result = caption_neurons.run(gallery.context(tmp_path), experiment)
    assert result.status == "ok", result.error
    entries: Any = result.output["captions"]
    effect = result.measurement("causal_effect", f"unit 0.{GREEN}")
    assert (effect is not None) == (entries[0]["caption"] is not None)
    assert effect is not None
    assert effect.ci95[0] > effect.baseline
    assert entries[0]["causal"]["n_matched"] == min(19, N_UNITS - 1)
    (stored,) = Atlas(tmp_path, gallery.subject.identity.digest).holdings().entries
    assert (stored.kind, stored.name, stored.caption) == (
        "channel",
        f"0.{GREEN}",
        entries[0]["caption"],
    )
    assert any("causal_effect alone" in caveat for caveat in result.caveats)


def test_the_embedder_compares_captions_with_what_images_show(
    gallery: Gallery, bench: VisionBench, tmp_path: Path
) -> None:
    texts = image_words(bench.captioner.held_out.table)
    green = bench.captioner.held_out.table.counts(Colour(name="green"))
    assert "green areas" in texts[int(green.argmax())]
    assert "green areas" not in texts[int(green.argmin())]
    objects = bench.captioner.held_out.table.counts(Object(of=Colour(name="green")))
    assert "green objects" in texts[int(objects.argmax())]
    assert "green objects" not in texts[int(objects.argmin())]

    def counting(asked: Any) -> Any:
        """Stands in for the sentence embedder: which colours a text names."""
        rows = [[each.count(colour) for colour in COLOURS] for each in asked]
        vectors = np.array(rows, float) + 1e-6
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    chosen = choose_all(gallery.context(tmp_path), bench).chosen
    found = assess_bench(bench, chosen, None, effort="quick", seed=0, vectors=counting)[0]
    plain = assess_bench(bench, chosen, None, effort="quick", seed=0)[0]
    assert found is not None
    assert plain is not None
    embedding = next(each for each in found.measurements if each.metric == "embedding")
    assert embedding.value > embedding.baseline
    assert embedding.n > 10
    assert found.holds == plain.holds
    assert found.measurements[0] == plain.measurements[0]
    assert all(each.metric != "embedding" for each in plain.measurements)
