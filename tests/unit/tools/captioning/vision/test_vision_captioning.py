"""Captions of vision units: found, chosen, scored beside floors, refused where nothing holds."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jaxtyping import UInt8
from numpy import ndarray

from dragoman.core.records import ToolResult
from dragoman.tools.captioning.entries import NO_CAPTION
from dragoman.tools.captioning.find import find_exemplars
from dragoman.tools.captioning.score import score_caption
from dragoman.tools.captioning.tool import caption_neurons
from dragoman.tools.captioning.vision.bench import VisionBench, bench_of, split_of
from dragoman.tools.captioning.vision.concepts import (
    CONCEPT,
    Colour,
    Concept,
    Not,
    Object,
    OfClass,
    Shape,
    Texture,
    both,
    either,
    objects_known,
    phrase,
)
from dragoman.tools.captioning.vision.describing import Suggestions, choose_all
from dragoman.tools.captioning.vision.entries import entry_of
from dragoman.tools.captioning.vision.patches import PATCHES, patch_table
from dragoman.tools.captioning.vision.reading import read
from dragoman.tools.captioning.vision.scores import assess_bench
from dragoman.tools.captioning.vision.survey import Read
from dragoman.tools.captioning.vision.textures import GRID, PATCH
from dragoman.tools.registry import Tool
from dragoman.tools.subjects.planted_scenes import PALETTE, TEXTURES, scene

from .conftest import COLOURS, N_UNITS, Gallery

Call = Callable[..., ToolResult]
RED = Colour(name="red")
RED_OBJECT = Object(of=RED)
STRIPED_OBJECT = Object(of=Texture(name="stripes"))


@pytest.fixture
def call(gallery: Gallery, tmp_path: Path) -> Call:
    def run(tool: Tool, images: str | None = None, **arguments: Any) -> ToolResult:
        context = gallery.context(tmp_path)
        named = {"images": images or str(gallery.folder), "layer": 0, **arguments}
        experiment = tool.experiment(tool.parse(named), subject_digest="", seed=0)
        return tool.run(context, experiment)

    return run


def bench_for(gallery: Gallery, columns: Sequence[ndarray], n: int | None = None) -> VisionBench:
    """Units with these activations, one a patch of the gallery's images."""
    activations = np.stack(columns, axis=1).astype(np.float32)
    peaks = activations.reshape(-1, PATCHES, activations.shape[1]).max(1)
    seen = gallery.survey._replace(read=(Read(activations, peaks),))
    every = range(activations.shape[1])
    context = gallery.context(gallery.home)
    units = list(every)[:n]
    parts = split_of(context, seen)
    return bench_of(context, seen, parts, 0, units, list(every), place=0, twin_place=None)


def entries_of(gallery: Gallery, bench: VisionBench) -> list[dict[str, Any]]:
    chosen = choose_all(gallery.context(gallery.home), bench).chosen
    found = assess_bench(bench, chosen, None, effort="quick", seed=0)
    return [
        entry_of(bench, unit, each, scored, tau=0.95)
        for unit, (each, scored) in enumerate(zip(chosen, found, strict=True))
    ]


def test_units_are_described_by_what_they_respond_to(gallery: Gallery, call: Call) -> None:
    names = ["red", "green", "yellow"]
    units = [COLOURS.index(name) for name in names]
    result = call(caption_neurons, neurons=units, effort="full")
    assert result.status == "ok", result.error
    entries: Any = result.output["captions"]
    assert [entry["unit"] for entry in entries] == [f"0.{unit}" for unit in units]
    for name, entry in zip(names, entries, strict=True):
        assert name in entry["caption"]
        assert len(entry["exemplars"]) >= 3
        assert all(each["image"].endswith(".png") for each in entry["exemplars"])
    detections = [each for each in result.measurements if each.metric == "detection"]
    assert len(detections) == len(names)
    assert all(each.ci95[0] > max(0.5, each.baseline) for each in detections)
    assert {"fuzzing", "simulation", "explained_variance"} <= {
        each.metric for each in result.measurements
    }
    assert any(each.metric == "detection_hard" for each in result.controls)
    assert result.output["n_images_failed"] == 1
    assert any("1 images did not decode" in caveat for caveat in result.caveats)
    pictures = [each.name for each in result.artifacts if each.media_type == "image/jpeg"]
    assert pictures == [f"exemplars-0.{unit}.jpg" for unit in units]


def test_without_pmi_the_prior_counts_in_full(gallery: Gallery, call: Call) -> None:
    unit = COLOURS.index("red")
    result = call(caption_neurons, neurons=[unit], effort="quick", pmi=False)
    assert result.output["tau"] == 0.0
    assert any("effort full" in caveat for caveat in result.caveats)


def test_a_unit_without_a_rule_gets_no_nice_sentence(gallery: Gallery) -> None:
    table = gallery.survey.table
    red = table.holds(Colour(name="red")).astype(float)
    generator = np.random.default_rng(3)
    # Maps dealt to other images: as clumped as before, and about nothing.
    maps = red.reshape(-1, PATCHES)
    shuffled = [generator.permutation(maps).reshape(-1) for _ in range(20)]
    rules = [table.holds(Colour(name=name)).astype(float) for name in ("red", "green", "purple")]
    entries = entries_of(gallery, bench_for(gallery, [*rules, *shuffled]))
    assert [entry["caption"] for entry in entries[3:]] == [None] * 20
    assert sum(entry["reason"] == NO_CAPTION for entry in entries[3:]) >= 15
    assert sum(entry["caption"] is not None for entry in entries[:3]) == 3


def test_a_dead_unit_is_called_dead(gallery: Gallery) -> None:
    table = gallery.survey.table
    columns = [np.zeros(len(table.holds(Colour(name="red")))), np.ones(table.n_images * PATCHES)]
    columns += [table.holds(Colour(name=name)).astype(float) for name in ("red", "green")]
    for entry in entries_of(gallery, bench_for(gallery, columns))[:2]:
        assert entry["caption"] is None
        assert str(entry["reason"]).startswith("dead on these images")


def test_two_senses_are_told_with_their_shares(gallery: Gallery) -> None:
    table = gallery.survey.table
    mixed = table.holds(Colour(name="red")) | table.holds(Colour(name="purple"))
    others = [table.holds(Colour(name=name)).astype(float) for name in ("green", "yellow")]
    entry = entries_of(gallery, bench_for(gallery, [mixed.astype(float), *others]))[0]
    # Plain objects of these scenes are areas of one colour: either word is right.
    told = {re.sub("objects$", "areas", sense["caption"]) for sense in entry["senses"]}
    assert told == {"red areas", "purple areas"}
    assert 0.9 < sum(sense["share"] for sense in entry["senses"]) <= 1.0
    assert all(sense["holds"] for sense in entry["senses"])
    assert {sense["floor"] for sense in entry["senses"]} != {0.5}


def test_hard_negatives_rouse_a_neighbour_and_leave_the_unit_silent(gallery: Gallery) -> None:
    table = gallery.survey.table
    green, circle = table.holds(Colour(name="green")), table.holds(Shape(name="circle"))
    narrow, wide = circle.astype(float), (green | circle).astype(float)
    bench = bench_for(gallery, [narrow, wide])
    sample = bench.captioner.samples[0]
    roused = bench.captioner.active_images(bench.captioner.held_out, 1)
    assert set(sample.hard) <= set(sample.silent)
    assert len(sample.hard) > 0
    assert roused[sample.hard].all()


def test_what_judges_was_never_seen_by_the_captioner(gallery: Gallery) -> None:
    captioner = bench_for(gallery, [np.arange(gallery.survey.table.n_images * PATCHES)]).captioner
    parts = [set(part.images) for part in (captioner.fit, captioner.validation, captioner.held_out)]
    assert not parts[0] & parts[1] | parts[0] & parts[2] | parts[1] & parts[2]
    assert sum(map(len, parts)) == gallery.survey.table.n_images
    shown = {image for image, _ in captioner.exemplars(0)}
    assert shown <= parts[0] | parts[1]


class Says:
    """A proposer that says the same of every unit."""

    name = "somebody"

    def __init__(self, *captions: str) -> None:
        self.captions = captions

    def suggest(self, context: Any, bench: VisionBench, units: Sequence[int]) -> Suggestions:
        return Suggestions([self.captions for _ in units], n_calls=1, n_failed=0)


def test_what_a_proposer_says_takes_part_and_what_cannot_be_read_counts(gallery: Gallery) -> None:
    table = gallery.survey.table
    columns = [table.holds(Colour(name=name)).astype(float) for name in ("red", "green")]
    bench = bench_for(gallery, columns)
    proposers = [Says("objects in red", "a feeling of loss")]
    choices = choose_all(gallery.context(gallery.home), bench, proposers=proposers)
    assert choices.n_failed == 2
    assert choices.cost["somebody"] == {
        "calls": 1,
        "from_cache": 0,
        "calls_per_unit": 0.5,
        "replies_per_unit": 0.5,
    }
    assert all(each is not None for each in choices.chosen)


@pytest.mark.parametrize(
    ("words", "concept"),
    [
        ("red circles", both(RED_OBJECT, Shape(name="circle"))),
        ("A photo of vertical stripes.", Texture(name="vertical stripes")),
        ("striped red objects", both(Object(of=Texture(name="stripes")), RED_OBJECT)),
        ("a checkered object", Object(of=Texture(name="checks"))),
        ("traffic lights", OfClass(index=920)),
        ("blue things or squares", either(Colour(name="blue"), Shape(name="square"))),
        (
            "circles that are not red",
            both(Shape(name="circle"), Not(of=RED_OBJECT)),
        ),
    ],
)
def test_words_are_read_as_concepts(words: str, concept: Concept) -> None:
    assert read(words) == concept


def test_words_that_say_nothing_known_are_not_read() -> None:
    assert read("circles of hope") is None
    assert read("the background") is None


def test_our_own_phrases_are_read_back() -> None:
    plain = (Colour(name="red"), Texture(name="fine grain"), Shape(name="dots"))
    every: tuple[Concept, ...] = (*plain, *objects_known())
    for concept in every:
        assert read(phrase(concept)) == concept
        assert CONCEPT.validate_json(concept.model_dump_json()) == concept


@pytest.mark.parametrize(
    ("concept", "words"),
    [
        (both(RED_OBJECT, STRIPED_OBJECT), "striped red objects"),
        (both(STRIPED_OBJECT, Shape(name="circle")), "striped circles"),
        (both(RED, Shape(name="circle")), "red areas of circles"),
        (both(both(RED, RED_OBJECT), Shape(name="circle")), "red areas of red circles"),
        (both(RED, Not(of=RED_OBJECT)), "red areas that are not red objects"),
        (both(RED_OBJECT, Not(of=RED)), "red objects that are not red areas"),
        (both(Shape(name="circle"), Not(of=STRIPED_OBJECT)), "circles that are not striped"),
    ],
)
def test_what_is_said_of_objects_and_of_places_is_told_apart(concept: Concept, words: str) -> None:
    assert phrase(concept) == words
    assert read(words) == concept


def test_no_object_has_an_edge_for_its_texture() -> None:
    with pytest.raises(ValueError, match="no object has the texture 'vertical edges'"):
        Object(of=Texture(name="vertical edges"))


def smooth_disc(radius: float, row: float) -> UInt8[ndarray, "224 224 3"]:
    """A red disc on grey whose outline blends over two pixels, as in a photograph."""
    down, right = np.mgrid[:224, :224]
    blend = np.clip((radius - np.hypot(down - row, right - 112)) / 2 + 0.5, 0, 1)[..., None]
    pixels = blend * np.array([220, 30, 30]) + (1 - blend) * 190
    return pixels.astype(np.uint8)


def test_a_blended_outline_is_no_texture_and_the_rim_of_an_image_no_matter() -> None:
    # In the middle, cut by the image's rim, and larger than any object is taken to be.
    views = [smooth_disc(40, 112), smooth_disc(40, 0), smooth_disc(100, 112)]
    table = patch_table([*views, np.full((224, 224, 3), 90, np.uint8)], labeller=None)
    smooth_red = both(RED_OBJECT, Object(of=Texture(name="smooth")))
    assert (table.counts(smooth_red) > 0).tolist() == [True, True, False, False]
    assert table.counts(Object(of=Texture(name="fine grain"))).tolist() == [0, 0, 0, 0]
    # An outline that the image cuts off is none.
    assert (table.counts(Shape(name="circle")) > 0).tolist()[:2] == [True, False]


def test_what_an_object_has_is_read_over_the_whole_of_it() -> None:
    # Two objects: what one of them has is not said of the other, nor of the background.
    for number in range(12):
        shown = scene(3, number)
        table = patch_table([shown.pixels], labeller=None)
        for thing in shown.objects:
            row, column = (int(place) // PATCH for place in thing.centre)
            told = {
                concept.of.name
                for concept in objects_known()
                if table.holds(concept)[row * GRID + column]
            }
            assert told & {*PALETTE, "smooth", *TEXTURES} == {
                thing.colour,
                thing.texture or "smooth",
            }
        assert not any(table.holds(concept)[0] for concept in objects_known())


def test_exemplars_come_with_pictures_and_shares(gallery: Gallery, call: Call) -> None:
    unit = COLOURS.index("red")
    result = call(find_exemplars, units=[unit])
    assert result.status == "ok", result.error
    listed: Any = result.output["units"]
    for each in listed[0]["exemplars"][:3]:
        number = int(Path(each["image"]).stem)
        assert any(thing.colour == "red" for thing in gallery.scenes[number].objects)
        assert 0 < each["share_of_image"] < 0.2
    assert result.output["n_images_failed"] == 1
    assert [each.media_type for each in result.artifacts] == ["image/jpeg"]


def test_anybodys_caption_is_scored(call: Call) -> None:
    green = COLOURS.index("green")
    right = call(score_caption, neuron=green, caption="things in green", effort="quick")
    assert right.status == "ok", right.error
    assert right.output["holds"] is True
    assert right.output["read_as"] == "green areas"
    assert right.measurements[0].ci95[0] > right.measurements[0].baseline
    wrong = call(score_caption, neuron=green, caption="purple", effort="quick")
    assert wrong.output["holds"] is False
    vague = call(score_caption, neuron=green, caption="the joy of spring", effort="quick")
    assert "'the joy of spring' cannot be checked" in str(vague.error)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"neurons": [N_UNITS]}, rf"unit {N_UNITS} is outside 0..{N_UNITS - 1} of layer 0"),
        ({"layer": 2}, r"layer 2 is outside 0..0"),
        ({"corpus": "x.txt"}, r"corpus: .* name a folder with images"),
        ({"kind": "head"}, r"kind: a vision subject's units are channels"),
        ({"images": "/nowhere"}, r"no such folder"),
    ],
)
def test_a_bad_argument_is_named(call: Call, arguments: dict[str, Any], told: str) -> None:
    result = call(caption_neurons, **{"neurons": [0], **arguments})
    assert result.status == "error"
    assert result.error is not None
    assert re.search(told, result.error), result.error


def test_folders_without_enough_pictures_are_refused(
    gallery: Gallery, call: Call, tmp_path: Path
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "no picture files" in str(call(caption_neurons, images=str(empty), neurons=[0]).error)
    (empty / "one.png").write_bytes(b"nothing")
    assert "none of its 1 picture" in str(
        call(caption_neurons, images=str(empty), neurons=[0]).error
    )
    (empty / "two.png").write_bytes((gallery.folder / "00.png").read_bytes())
    told = str(call(caption_neurons, images=str(empty), neurons=[0]).error)
    assert "1 pictures decode; captions need 30 at least" in told
