"""One pass for all layers gives what a plain reading of every map gives, stopped or split."""

import errno
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from dragoman.core.errors import Interrupted, ToolError, UserError
from dragoman.tools.captioning.exemplars import QuantileSketch
from dragoman.tools.captioning.vision import exemplars, store
from dragoman.tools.captioning.vision.exemplars import BATCH, collect
from dragoman.tools.captioning.vision.images import ImageSet, Undecodable
from dragoman.tools.captioning.vision.masks import masks, upsampled
from dragoman.tools.captioning.vision.store import VisionExemplars, merged
from dragoman.tools.captioning.vision.tally import LayerTally
from dragoman.tools.context import ToolContext
from dragoman.tools.subjects.vision import Preprocessing, VisionLayer, VisionSubject

N = 3 * BATCH + 5


def tiny_subject() -> VisionSubject:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1, stride=2),
            nn.ReLU(),
            nn.Conv2d(6, 9, 3, padding=1, stride=2),
            nn.GELU(),
            nn.Flatten(),
            nn.Linear(9 * 64, 4),
        )
    return VisionSubject(
        model,
        "tiny",
        layers=[VisionLayer("1", 6, (16, 16)), VisionLayer("3", 9, (8, 8))],
        preprocessing=Preprocessing(
            size=(32, 32), resize=32, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25)
        ),
        n_classes=4,
    )


def picture(index: int) -> Image.Image:
    values = np.random.default_rng(index).integers(0, 256, (5, 5, 3), np.uint8)
    return Image.fromarray(values).resize((40, 32), Image.Resampling.BICUBIC)


def make_images(n: int = N, broken: tuple[int, ...] = ()) -> ImageSet:
    def decode(index: int) -> Image.Image:
        if index in broken:
            raise Undecodable(f"picture {index}: cut off")
        return picture(index)

    names = tuple(map(str, range(n)))
    return ImageSet(names, (None,) * n, f"{n} {broken}", "test pictures", decode)


@pytest.fixture
def context(tmp_path: Path) -> ToolContext:
    return ToolContext(tiny_subject(), 0, tmp_path, tmp_path / "artifacts", tmp_path / "cache")


def all_maps(context: ToolContext, layer: int, indices: list[int]) -> Any:
    pixels = context.vision.preprocess([picture(index) for index in indices])
    return context.vision.maps(pixels, [layer])[layer]


def same(first: VisionExemplars, second: VisionExemplars) -> bool:
    return all(
        torch.equal(tensor, second.tensors(layer)[name])
        for layer in first.layers
        for name, tensor in first.tensors(layer).items()
    )


def test_the_best_pictures_maps_and_densities_are_those_of_a_plain_reading(
    context: ToolContext,
) -> None:
    found = collect(context, make_images(), [1, 0])
    assert found.layers == (0, 1)
    for layer in found.layers:
        maps = all_maps(context, layer, list(range(N)))
        peaks = maps.amax((2, 3)).numpy()
        for unit in range(found.n_units(layer)):
            order = np.lexsort((np.arange(N), -peaks[:, unit]))[:15]
            assert found.images(layer, unit).tolist() == order.tolist()
            assert found.activations(layer, unit) == pytest.approx(peaks[order, unit], abs=1e-5)
            for image in order:
                kept = torch.from_numpy(found.map(layer, unit, int(image)))
                torch.testing.assert_close(kept, maps[image, unit], atol=1e-5, rtol=0)
        positive = (maps > 0).float().mean((0, 2, 3))
        assert found.density(layer) == pytest.approx(positive.numpy(), abs=1e-3)
        exact = maps.permute(1, 0, 2, 3).flatten(1).quantile(0.99, dim=1).clamp(min=0)
        error = np.abs(found.thresholds(layer) - exact.numpy())
        assert (error <= 0.03 * exact.numpy() + 1e-3).all()


def test_a_mask_is_the_upsampled_map_above_the_dataset_wide_quantile(context: ToolContext) -> None:
    found = collect(context, make_images(), [0])
    for unit in range(6):
        for rank, exemplar in enumerate(found.exemplars(0, unit)[:3]):
            large = upsampled(torch.from_numpy(found.map(0, unit, exemplar.image)))
            expected = (large > found.threshold(0, unit)).numpy()
            mask = found.mask(0, unit, exemplar.image)
            assert mask.shape == (224, 224)
            assert np.array_equal(mask, expected)
            assert np.array_equal(found.masks(0, unit)[rank], mask)
        # One threshold for all pictures: the masks of weaker ones are smaller on the whole.
        assert found.masks(0, unit)[0].any()


def test_a_clipped_unit_has_a_mask_all_the_same() -> None:
    tally = LayerTally(1, (4, 4))
    tally.see(torch.arange(8), torch.full((8, 1, 4, 4), 6.0) * torch.eye(4))
    tensors = tally.tensors()
    assert QuantileSketch.RELATIVE_ERROR > 0
    assert masks(tensors["maps"][0, 0], float(tensors["thresholds"][0])).any()


def test_parts_merge_to_the_whole_to_the_bit_in_any_order(
    context: ToolContext, tmp_path: Path
) -> None:
    images = make_images(broken=(3, 40))
    whole = collect(context, images, [0, 1])
    cuts = [(0, BATCH), (BATCH, 3 * BATCH), (3 * BATCH, N)]
    parts = [collect(context, images, [0, 1], part=cut) for cut in cuts]
    for index, order in enumerate([(0, 1, 2), (2, 0, 1), (1, 2, 0)]):
        result = parts[order[0]]
        for step, number in enumerate(order[1:]):
            result = merged(result, parts[number], tmp_path / f"merged {index} {step}")
        assert same(whole, result)
        assert result.question == whole.question
        assert result.failed == whole.failed
        assert result.n_images == N - 2
    with pytest.raises(ToolError, match="in both results"):
        merged(parts[0], parts[0], tmp_path / "twice")
    other = collect(context, images, [1], part=cuts[1])
    with pytest.raises(ToolError, match="cannot be merged"):
        merged(parts[0], other, tmp_path / "different")


def test_a_pass_that_was_stopped_goes_on_to_the_same_result(
    context: ToolContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exemplars, "CHECKPOINT_BATCHES", 1)
    images = make_images()
    seen: list[int] = []

    def decode(index: int) -> Image.Image:
        seen.append(index)
        return images.decode(index)

    counted = replace(images, decode=decode)
    steps = iter([False, False, True])
    stopping = replace(context, cancelled=lambda: next(steps))
    with pytest.raises(Interrupted):
        collect(stopping, counted, [0, 1])
    seen.clear()
    resumed = collect(context, counted, [0, 1])
    assert seen == list(range(2 * BATCH, N))
    fresh = collect(context, images, [0, 1], folder=context.cache / "fresh")
    assert same(fresh, resumed)
    seen.clear()
    assert same(collect(context, counted, [0, 1]), fresh)
    assert seen == []


def test_pictures_that_do_not_decode_are_counted_and_left_out(context: ToolContext) -> None:
    found = collect(context, make_images(broken=(0, 17)), [0])
    assert found.failed == {0: "picture 0: cut off", 17: "picture 17: cut off"}
    assert found.n_images == N - 2
    for unit in range(6):
        assert not {0, 17} & set(found.images(0, unit).tolist())
    with pytest.raises(ToolError, match="none of the 4 pictures decodes, first picture 0: cut off"):
        collect(context, make_images(4, broken=(0, 1, 2, 3)), [0])


def test_few_pictures_give_few_exemplars(context: ToolContext) -> None:
    found = collect(context, make_images(3), [1])
    assert len(found.images(1, 0)) == len(found.exemplars(1, 0)) == len(found.masks(1, 0)) == 3


def test_a_dead_unit_is_told(context: ToolContext) -> None:
    conv: Any = context.vision.model.get_submodule("0")
    conv.weight.data[2] = 0
    conv.bias.data[2] = -1
    found = collect(context, make_images(), [0])
    assert found.dead(0).tolist() == [unit == 2 for unit in range(6)]
    assert found.threshold(0, 2) == 0
    assert not found.masks(0, 2).any()


@pytest.mark.parametrize(
    ("call", "complaint"),
    [
        (lambda context: collect(context, make_images(), [2]), r"layer 2 is outside 0\.\.1"),
        (
            lambda context: collect(context, make_images(), [0], part=(3, 9)),
            "begins at a multiple of 16",
        ),
        (lambda context: collect(context, make_images(), [0]).images(1, 0), r"\(read: 0\)"),
        (lambda context: collect(context, make_images(), [0]).images(0, 6), r"outside 0\.\.5"),
        (
            lambda context: collect(context, make_images(20), [0]).mask(0, 0, 999),
            "picture 999 is not among the 15 strongest",
        ),
    ],
)
def test_what_cannot_be_asked(
    context: ToolContext, call: Callable[[ToolContext], Any], complaint: str
) -> None:
    with pytest.raises(ToolError, match=complaint):
        call(context)


def test_activations_that_are_no_numbers_end_the_pass(context: ToolContext) -> None:
    conv: Any = context.vision.model.get_submodule("0")
    conv.bias.data[1] = float("nan")
    with pytest.raises(ToolError, match="not finite in picture 0"):
        collect(context, make_images(), [0])


def test_a_full_disk_says_so_and_keeps_what_was_finished(
    context: ToolContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exemplars, "CHECKPOINT_BATCHES", 1)
    real, calls = save_file, iter(range(9))

    def fill_up(tensors: Any, path: Path) -> None:
        if next(calls) == 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(tensors, path)

    monkeypatch.setattr(store, "save_file", fill_up)
    with pytest.raises(UserError, match="disk is full"):
        collect(context, make_images(), [0])
    (folder,) = (context.cache / "vision_exemplars").iterdir()
    assert [path.name for path in folder.glob("*.safetensors")] == [f"units-{BATCH}.safetensors"]
    resumed = collect(context, make_images(), [0])
    assert same(resumed, collect(context, make_images(), [0], folder=context.cache / "fresh"))


def test_a_language_subject_has_no_pictures(tmp_path: Path, tiny_subject: Any) -> None:
    context = ToolContext(tiny_subject, 0, tmp_path, tmp_path, tmp_path)
    with pytest.raises(ToolError, match="needs a vision subject; 'tiny llama' is a language"):
        collect(context, make_images(), [0])
