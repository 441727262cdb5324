"""Folders of pictures: every kind of file that people have, damaged ones among them."""

import os
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dragoman.core.errors import UserError
from dragoman.tools.captioning.vision.images import (
    Undecodable,
    as_rgb,
    chosen,
    folder_images,
    read_picture,
)


def picture(colour: tuple[int, ...] = (200, 30, 30), mode: str = "RGB") -> Image.Image:
    return Image.new(mode, (40, 30), colour)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "pictures"
    for name in ("cats", "dogs"):
        (root / name).mkdir(parents=True)
    picture().save(root / "cats" / "one.png")
    picture((30, 200, 30)).save(root / "cats" / "two.jpg")
    picture((30, 30, 200)).save(root / "dogs" / "three.webp")
    picture().save(root / "loose.bmp")
    (root / "notes.txt").write_text("no picture")
    return root


def test_a_sub_folder_names_the_class_of_its_pictures(folder: Path) -> None:
    images = folder_images(folder)
    assert images.ids == ("cats/one.png", "cats/two.jpg", "dogs/three.webp", "loose.bmp")
    assert images.labels == ("cats", "cats", "dogs", None)
    assert images.classes == ("cats", "dogs")
    assert images.of_class("dogs") == [2]
    assert images.load(1).getpixel((5, 5))[1] > 150  # type: ignore[index]  # RGB gives a tuple


def test_files_that_do_not_decode_are_named_and_left_out(folder: Path) -> None:
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing more")
    (folder / "empty.jpg").touch()
    images = folder_images(folder)
    assert images.undecodable == ("broken.png", "empty.jpg")
    assert "2 more did not decode" in images.description
    assert len(images) == 4


def test_a_file_that_breaks_off_is_told_when_it_is_read(folder: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    path = folder / "cut.png"
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:3000])
    images = folder_images(folder)
    with pytest.raises(Undecodable, match=r"cut\.png"):
        images.load(images.ids.index("cut.png"))


def test_one_error_says_that_nothing_can_be_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        folder_images(tmp_path / "absent")
    with pytest.raises(UserError, match="no picture files"):
        folder_images(tmp_path)
    (tmp_path / "a.png").write_text("no")
    (tmp_path / "b.jpg").write_text("no")
    with pytest.raises(UserError, match=re.escape("none of its 2 picture files decodes")):
        folder_images(tmp_path)


def test_every_colour_mode_becomes_rgb(tmp_path: Path) -> None:
    picture((0, 255, 255, 0), "CMYK").save(tmp_path / "cmyk.jpg", quality=95)
    red, green, blue = read_picture(tmp_path / "cmyk.jpg").getpixel((5, 5))  # type: ignore[misc]
    assert red > 200 > 60 > max(green, blue)

    picture().quantize(4).save(tmp_path / "palette.png")
    assert read_picture(tmp_path / "palette.png").getpixel((5, 5)) == (200, 30, 30)

    Image.new("RGBA", (8, 8), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    assert read_picture(tmp_path / "clear.png").getpixel((5, 5)) == (255, 255, 255)

    sixteen = np.full((8, 8), 32768, np.uint16)
    Image.fromarray(sixteen).save(tmp_path / "sixteen.png")
    assert read_picture(tmp_path / "sixteen.png").getpixel((5, 5)) == (127, 127, 127)

    floats = np.linspace(0, 10, 64, dtype=np.float32).reshape(8, 8)
    assert as_rgb(Image.fromarray(floats)).getextrema() == ((0, 255),) * 3


def test_an_animation_gives_its_first_frame(tmp_path: Path) -> None:
    frames = [picture((value, value, value)) for value in (10, 250)]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    red, _, _ = read_picture(tmp_path / "moving.gif").getpixel((5, 5))  # type: ignore[misc]
    assert red < 40


def test_the_camera_was_held_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    picture().save(tmp_path / "turned.jpg", exif=exif)
    assert read_picture(tmp_path / "turned.jpg").size == (30, 40)


def test_a_large_picture_is_decoded_and_a_huge_one_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("L", (4000, 3000)).save(tmp_path / "large.jpg")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10_000_000)  # PIL only warns of it
    images = folder_images(tmp_path)
    assert min(images.load(0).size) < 3000

    monkeypatch.setattr("dragoman.tools.captioning.vision.images.MAX_PIXELS", 1_000_000)
    with pytest.raises(UserError, match="none of its 1"):
        folder_images(tmp_path)


def test_a_limit_takes_pictures_evenly(folder: Path) -> None:
    images = folder_images(folder, limit=2)
    assert images.ids == ("cats/one.png", "dogs/three.webp")
    assert images.digest != folder_images(folder).digest


def test_the_digest_is_of_content_and_names(folder: Path) -> None:
    before = folder_images(folder).digest
    picture = folder / "cats" / "one.png"
    os.utime(picture, (1, 1))
    assert folder_images(folder).digest == before
    Image.new("RGB", (40, 40), "navy").save(picture)
    assert folder_images(folder).digest != before


def test_chosen_pictures_keep_their_names(folder: Path) -> None:
    images = chosen(folder_images(folder), [2, 0])
    assert images.ids == ("dogs/three.webp", "cats/one.png")
    assert images.labels == ("dogs", "cats")
    assert images.load(0).getpixel((5, 5))[2] > 150  # type: ignore[index]
