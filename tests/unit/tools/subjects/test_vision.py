"""Vision subjects: maps, ablations and views agree with the network's own forward pass."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from dragoman.core.errors import ToolError
from dragoman.tools.context import ToolContext
from dragoman.tools.registry import tool
from dragoman.tools.subjects.vision import Preprocessing, VisionLayer, VisionSubject
from dragoman.tools.subjects.vision_loading import make_vision
from dragoman.tools.subjects.vision_twin import random_vision_twin

PLAIN = Preprocessing(size=(32, 32), resize=32, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))


def tiny_cnn() -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return nn.Sequential(
            nn.Conv2d(3, 6, 3, stride=2, padding=1),
            nn.BatchNorm2d(6),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
            nn.Conv2d(6, 5, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(5, 4),
        )


@pytest.fixture
def subject() -> VisionSubject:
    return make_vision(tiny_cnn(), "tiny", PLAIN)


@pytest.fixture
def pixels() -> torch.Tensor:
    return torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def test_layers_are_what_follows_normalisation_and_nonlinearity(subject: VisionSubject) -> None:
    assert subject.layers == ("2", "5")
    assert subject.units == (6, 5)
    assert [subject.grid(layer) for layer in (0, 1)] == [(16, 16), (8, 8)]
    identity = subject.identity
    assert (identity.n_layers, identity.d_mlp, identity.d_vocab) == (2, 6, 4)


def test_maps_are_the_modules_own_outputs_and_change_nothing(
    subject: VisionSubject, pixels: torch.Tensor
) -> None:
    model: Any = subject.model
    by_hand = model[:3](pixels)
    maps = subject.maps(pixels, [1, 0])
    assert list(maps) == [1, 0]
    torch.testing.assert_close(maps[0], by_hand)
    torch.testing.assert_close(maps[1], model[3:6](by_hand))
    torch.testing.assert_close(subject.logits(pixels), model(pixels))
    assert not any(module._forward_hooks for module in model.modules())


def test_nothing_after_the_last_layer_asked_about_is_computed(
    subject: VisionSubject, pixels: torch.Tensor
) -> None:
    model: Any = subject.model
    called = []
    model[8].register_forward_hook(lambda *_: called.append(1))
    subject.maps(pixels, [0, 1])
    assert not called
    subject.logits(pixels)
    assert called


def test_ablating_nothing_changes_nothing_and_ablating_a_unit_removes_it(
    subject: VisionSubject, pixels: torch.Tensor
) -> None:
    model: Any = subject.model
    plain = subject.logits(pixels)
    assert torch.equal(subject.logits(pixels, {}), plain)
    assert torch.equal(subject.logits(pixels, {0: []}), plain)
    hidden = model[:3](pixels)
    hidden[:, [1, 4]] = 0
    torch.testing.assert_close(subject.logits(pixels, {0: [1, 4]}), model[3:](hidden))
    maps = subject.maps(pixels, [0, 1], {0: [1, 4]})
    assert not maps[0][:, [1, 4]].any()
    torch.testing.assert_close(maps[1], model[3:6](hidden))
    # All units of the last layer: what is left is the bias.
    everything = subject.logits(pixels, {1: list(range(5))})
    torch.testing.assert_close(everything, model[8].bias.expand(3, -1))


@pytest.mark.parametrize(
    ("ablate", "complaint"),
    [
        ({2: [0]}, r"layer 2 is outside 0\.\.1 of subject 'tiny'"),
        ({1: [5]}, r"unit 5 is outside 0\.\.4 of layer 1 \(5\)"),
        ({1: [-1]}, r"unit -1 is outside"),
        ({0: [3, 3]}, "3 is named twice"),
    ],
)
def test_what_is_not_there_cannot_be_ablated(
    subject: VisionSubject, pixels: torch.Tensor, ablate: dict[int, list[int]], complaint: str
) -> None:
    with pytest.raises(ToolError, match=complaint):
        subject.logits(pixels, ablate)


@pytest.mark.parametrize("size", [(40, 30), (30, 40), (400, 20), (7, 7), (1, 90), (32, 32)])
@pytest.mark.parametrize("resize", [32, 40, None])
def test_every_picture_fits(size: tuple[int, int], resize: int | None) -> None:
    preprocessing = PLAIN.model_copy(update={"resize": resize})
    subject = make_vision(tiny_cnn(), "tiny", preprocessing)
    view = subject.view(Image.new("RGB", size, (255, 0, 0)))
    assert view.shape == (32, 32, 3)
    assert (view == (255, 0, 0)).all()
    pixels = subject.preprocess([Image.new("RGB", size, (255, 0, 0))])
    assert pixels[0, :, 5, 5].tolist() == pytest.approx([2, -2, -2])


def test_the_centre_is_cut_out_as_by_resizing_first() -> None:
    smooth = np.add.outer(np.arange(60), np.arange(90)).astype(np.uint8)
    image = Image.fromarray(smooth).convert("RGB")
    preprocessing = PLAIN.model_copy(update={"resize": 40, "interpolation": "bilinear"})
    view = make_vision(tiny_cnn(), "tiny", preprocessing).view(image)
    resized = np.asarray(image.resize((60, 40), Image.Resampling.BILINEAR))
    assert np.abs(view.astype(int) - resized[4:36, 14:46].astype(int)).max() <= 1


def test_identity_follows_weights_statistics_and_preprocessing() -> None:
    digest = make_vision(tiny_cnn(), "tiny", PLAIN).identity.digest
    assert make_vision(tiny_cnn(), "another name", PLAIN).identity.digest == digest
    changed: Any = tiny_cnn()
    changed[1].running_mean[0] += 1
    assert make_vision(changed, "tiny", PLAIN).identity.digest != digest
    other = PLAIN.model_copy(update={"resize": 36})
    assert make_vision(tiny_cnn(), "tiny", other).identity.digest != digest


def test_the_random_twin_has_other_weights_and_is_alive(pixels: torch.Tensor) -> None:
    subject = make_vision(tiny_cnn(), "tiny", PLAIN)
    before = torch.random.get_rng_state()
    twin = random_vision_twin(subject, 3)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert twin.layers == subject.layers
    assert twin.identity.digest != subject.identity.digest
    assert twin.identity.digest == random_vision_twin(subject, 3).identity.digest
    assert twin.identity.digest != random_vision_twin(subject, 4).identity.digest
    for layer in (0, 1):
        share = (twin.maps(pixels, [layer])[layer] > 0).float().mean()
        assert 0.1 < share < 0.9
    assert subject.identity == make_vision(tiny_cnn(), "tiny", PLAIN).identity


def test_a_tool_says_what_kind_of_subject_it_needs(
    subject: VisionSubject, tiny_subject: Any, tmp_path: Path
) -> None:
    from dragoman.core.records import ToolSuccess

    @tool(method="behaviour")
    def read_words(context: ToolContext) -> ToolSuccess:
        """Read words."""
        return ToolSuccess(summary=context.subject.identity.name)

    @tool(method="captioning", subjects=("vision",))
    def look(context: ToolContext) -> ToolSuccess:
        """Look."""
        return ToolSuccess(summary=context.vision.identity.name)

    @tool(method="captioning", subjects=("language", "vision"))
    def do_either(context: ToolContext) -> ToolSuccess:
        """Do either."""
        return ToolSuccess(summary=context.vision.identity.name)

    def run(used: Any, network: Any) -> Any:
        context = ToolContext(network, 0, tmp_path, tmp_path, tmp_path)
        return used.run(context, used.experiment({}, subject_digest="d", seed=0))

    assert run(read_words, tiny_subject).status == run(look, subject).status == "ok"
    refused = run(read_words, subject)
    assert refused.error == "read_words needs a language subject; 'tiny' is a vision subject"
    refused = run(look, tiny_subject)
    assert refused.error == "look needs a vision subject; 'tiny llama' is a language subject"
    refused = run(do_either, tiny_subject)
    assert refused.error == "this needs a vision subject; 'tiny llama' is a language subject"


def test_a_subject_needs_layers_and_as_many_labels_as_classes() -> None:
    def build(**options: Any) -> VisionSubject:
        return VisionSubject(tiny_cnn(), "tiny", preprocessing=PLAIN, n_classes=4, **options)

    with pytest.raises(ToolError, match="no layer with spatial maps"):
        build(layers=[])
    with pytest.raises(ToolError, match="4 classes, but 2 labels"):
        build(layers=[VisionLayer("2", 6, (16, 16))], labels=("a", "b"))
