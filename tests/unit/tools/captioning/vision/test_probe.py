"""The embedded probe set: seeded, a small set begins a large one, attributes are what is drawn."""

from pathlib import Path

import numpy as np
import pytest

from dragoman.core.errors import UserError
from dragoman.tools.captioning.vision import probe
from dragoman.tools.captioning.vision.drawing import COLOURS, KINDS, SIDE, draw
from dragoman.tools.captioning.vision.probe import PICTURES, probe_images


def test_the_same_seed_gives_the_same_pictures_and_another_seed_others() -> None:
    first, again, other = probe_images(3, 12), probe_images(3, 40), probe_images(4, 12)
    for index in range(12):
        picture = np.asarray(first.load(index))
        assert np.array_equal(picture, np.asarray(again.load(index)))
        assert not np.array_equal(picture, np.asarray(other.load(index)))
    assert first.attributes == again.attributes[:12]
    assert first.digest != again.digest
    assert first.digest == probe_images(3, 12).digest


def test_every_picture_and_every_pattern_has_its_turn() -> None:
    images = probe_images(0, 3 * len(KINDS) * 2)
    assert set(images.labels) == {*PICTURES.values(), *KINDS}
    for attributes in images.attributes:
        drawn = "picture" not in attributes
        assert (attributes["content"] in KINDS) is drawn
        assert ("colour" in attributes) is drawn
    assert images.load(0).mode == images.load(2).mode == "RGB"


@pytest.mark.parametrize("kind", KINDS)
def test_the_attributes_are_those_of_the_picture(kind: str) -> None:
    for seed in range(4):
        told = draw(kind, np.random.default_rng(seed), pixels=False).attributes
        drawing = draw(kind, np.random.default_rng(seed))
        assert drawing.attributes == told
        pixels = np.asarray(drawing.image).reshape(-1, 3).astype(float)
        assert len(pixels) == SIDE * SIDE
        for name in ("colour", "second_colour"):
            if name in told:
                distance = np.abs(pixels - COLOURS[told[name]]).max(axis=1)
                # Both colours cover a part of the picture, within shade and grain.
                assert (distance < 60).mean() > 0.02, (kind, seed, name)


def test_stripes_run_in_the_direction_that_is_told() -> None:
    for seed in range(12):
        drawing = draw("stripes", np.random.default_rng(seed))
        grey = np.asarray(drawing.image.convert("L")).astype(float)
        across, along = np.abs(np.diff(grey, axis=1)).sum(), np.abs(np.diff(grey, axis=0)).sum()
        if drawing.attributes["orientation"] == "vertical":
            assert across > along
        if drawing.attributes["orientation"] == "horizontal":
            assert along > across


def test_a_set_needs_a_picture_and_scikit_image(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="at least 1"):
        probe_images(0, 0)
    monkeypatch.setattr(probe, "_picture_folder", lambda: tmp_path)
    with pytest.raises(UserError, match="without its pictures"):
        probe_images(0, 3)
    monkeypatch.undo()
    monkeypatch.setattr(probe, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="needs scikit-image"):
        probe_images(0, 3)
