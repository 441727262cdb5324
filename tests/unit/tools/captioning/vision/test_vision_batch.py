"""Vision units in the batch: as the tool captions them, with pictures, and exactly resumable."""

import errno
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dragoman.core.errors import Interrupted, ToolError, UserError
from dragoman.core.files import write_atomic
from dragoman.tools.captioning import batch
from dragoman.tools.captioning.batch_table import write_table
from dragoman.tools.captioning.page import write_page
from dragoman.tools.captioning.rows import UnitCaption
from dragoman.tools.captioning.tool import caption_neurons
from dragoman.tools.captioning.vision import batch as vision_batch
from dragoman.tools.captioning.vision.batch import VisionUnits

from .conftest import N_UNITS, Gallery

UNITS = list(range(N_UNITS))


@pytest.fixture(scope="module")
def whole(gallery: Gallery, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run in one piece."""
    folder = tmp_path_factory.mktemp("whole")
    caption(
        VisionUnits(gallery.context(folder), {0: UNITS}, gallery.images, effort="quick"), folder
    )
    return folder


@pytest.fixture
def units(gallery: Gallery, tmp_path: Path) -> VisionUnits:
    return VisionUnits(gallery.context(tmp_path), {0: UNITS}, gallery.images, effort="quick")


def caption(units: VisionUnits, folder: Path, *, resume: bool = False) -> list[UnitCaption]:
    describe = partial(units.describe, folder)
    batch.run(
        folder, units.settings, units.groups, describe, resume=resume, on_pace=lambda pace: None
    )
    return list(batch.read_rows(folder))


def contents(folder: Path) -> dict[str, bytes]:
    files = [*folder.glob("pictures/*"), folder / batch.ROWS_FILE]
    return {path.name: path.read_bytes() for path in files}


def test_a_row_says_what_the_tool_says(whole: Path, gallery: Gallery, tmp_path: Path) -> None:
    rows = list(batch.read_rows(whole))
    arguments = caption_neurons.parse(
        {"layer": 0, "neurons": [*UNITS], "images": str(gallery.folder), "effort": "quick"}
    )
    result = caption_neurons.run(
        gallery.context(tmp_path), caption_neurons.experiment(arguments, subject_digest="", seed=0)
    )
    entries: Any = result.output["captions"]
    assert [row.name for row in rows] == [entry["unit"] for entry in entries]
    for row, entry in zip(rows, entries, strict=True):
        assert (row.caption, row.best_rejected) == (entry["caption"], entry.get("best_rejected"))
        assert (row.kind, row.predicate) == ("channel", entry.get("predicate"))
        # What units cause the batch asks for with `thorough` alone.
        assert row.measurements == tuple(
            each
            for each in result.measurements
            if each.scope == f"unit {row.name}" and each.metric != "causal_effect"
        )
    assert sum(row.caption is not None for row in rows) >= 4


def test_pictures_stand_beside_the_rows_and_in_the_page(units: VisionUnits, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    rows = caption(units, folder)
    shown = [row.images for row in rows if row.images is not None]
    assert len(shown) >= 6
    for images in shown:
        with Image.open(folder / images.picture) as picture:
            assert picture.size[0] == 5 * 112 + 4 * 4
        assert list(images.activations) == sorted(images.activations, reverse=True)
    page = write_page(folder, units.settings, len(rows)).read_text("utf-8")
    # One picture of the folder is damaged.
    assert {row.n_images_failed for row in rows} == {1}
    assert "left out because they do not decode: 1<" in page
    assert page.count("data:image/jpeg;base64,") == len(shown)
    assert write_table(folder).is_file()


def test_a_run_that_was_stopped_goes_on_to_the_same_bytes(
    units: VisionUnits, whole: Path, gallery: Gallery, tmp_path: Path
) -> None:
    stopped = tmp_path / "stopped"

    def describe(folder: Path, index: int, wanted: Sequence[str]) -> Iterator[UnitCaption]:
        for number, row in enumerate(units.describe(folder, index, wanted)):
            if number == 5:
                raise Interrupted("stopped on request")
            yield row

    with pytest.raises(Interrupted):
        batch.run(
            stopped,
            units.settings,
            units.groups,
            partial(describe, stopped),
            resume=False,
            on_pace=lambda pace: None,
        )
    assert len(list(batch.read_rows(stopped))) == 5
    again = VisionUnits(gallery.context(tmp_path), {0: UNITS}, gallery.images, effort="quick")
    caption(again, stopped, resume=True)
    assert contents(stopped) == contents(whole)


def test_a_full_disk_keeps_what_is_finished(
    units: VisionUnits, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled = tmp_path / "filled"
    written: list[Path] = []
    real = write_atomic

    def write(path: Path, content: bytes) -> None:
        if len(written) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append(path)
        real(path, content)

    with monkeypatch.context() as patched:
        patched.setattr(vision_batch, "write_atomic", write)
        with pytest.raises(UserError, match="disk is full; what was finished is kept"):
            caption(units, filled)
    assert len(list(batch.read_rows(filled))) == 3
    caption(units, filled, resume=True)
    assert contents(filled) == contents(whole)


def test_a_unit_that_is_not_there_is_named(gallery: Gallery, tmp_path: Path) -> None:
    context = gallery.context(tmp_path)
    with pytest.raises(ToolError, match=f"unit {N_UNITS} is outside 0..{N_UNITS - 1} of layer 0"):
        VisionUnits(context, {0: [N_UNITS]}, gallery.images, effort="quick")
