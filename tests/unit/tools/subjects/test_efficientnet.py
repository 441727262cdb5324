"""EfficientNet-Lite: sizes of the published networks, and pictures that it really recognises."""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from dragoman.core.errors import IntegrityError, UserError
from dragoman.tools import weights
from dragoman.tools.subjects.efficientnet import (
    VARIANTS,
    EfficientNetLite,
    _our_name,
    efficientnet_subject,
    imagenet_labels,
    load_efficientnet,
)
from dragoman.tools.subjects.vision import VisionSubject
from dragoman.tools.subjects.vision_anatomy import find_layers
from dragoman.tools.subjects.vision_twin import random_vision_twin
from dragoman.tools.weights import known_weights

# Published parameter counts, in millions, and units as the shapes in the published files give them.
SIZES = {"efficientnet-lite0": (4.652, 18, 10_272), "efficientnet-lite2": (6.092, 23, 13_968)}
SEEN = {
    "chelsea.png": {"tabby", "tiger cat", "Egyptian cat", "lynx"},
    "coffee.png": {"espresso", "cup", "coffee mug"},
    "rocket.jpg": {"missile", "projectile", "space shuttle"},
    "motorcycle_left.png": {"moped", "motor scooter", "disk brake", "crash helmet"},
}


def shipped(name: str) -> Image.Image:
    found = find_spec("skimage")
    assert found is not None
    assert found.submodule_search_locations
    return Image.open(Path(found.submodule_search_locations[0]) / "data" / name)


@pytest.fixture(scope="module")
def load(weights_home: Path) -> Callable[[str], VisionSubject]:
    return lambda name: load_efficientnet(name, weights_home / "weights")


@pytest.mark.parametrize("name", VARIANTS)
def test_the_architecture_is_the_published_one(name: str) -> None:
    model = EfficientNetLite(VARIANTS[name])
    millions, n_layers, n_units = SIZES[name]
    assert round(sum(weight.numel() for weight in model.parameters()) / 1e6, 3) == millions
    subject = efficientnet_subject(model, name)
    assert (subject.n_layers, sum(subject.units)) == (n_layers, n_units)
    maps = subject.maps(torch.zeros(1, 3, *subject.preprocessing.size), range(n_layers))
    for layer in range(n_layers):
        assert tuple(maps[layer].shape[1:]) == (subject.n_units(layer), *subject.grid(layer))
        assert 0 <= float(maps[layer].min()) <= float(maps[layer].max()) <= 6
    # The general search finds blocks, not their inner layers, and does not fail on this network.
    assert find_layers(model, subject.preprocessing.size)


def test_labels_are_a_thousand_different_names() -> None:
    labels = imagenet_labels()
    assert len(set(labels)) == 1000
    assert labels[281] == "tabby"
    assert labels[999] == "toilet tissue"


@pytest.mark.weights
@pytest.mark.parametrize("name", VARIANTS)
def test_it_recognises_pictures(name: str, load: Callable[[str], VisionSubject]) -> None:
    subject = load(name)
    logits = subject.logits(subject.preprocess([shipped(picture) for picture in SEEN]))
    for row, (picture, expected) in zip(logits, SEEN.items(), strict=True):
        best = {subject.labels[int(label)] for label in row.topk(5).indices}
        assert len(best & expected) >= 2, (picture, best)


@pytest.mark.weights
def test_its_twin_recognises_nothing_but_is_alive(load: Callable[[str], VisionSubject]) -> None:
    subject = load("efficientnet-lite0")
    twin = random_vision_twin(subject, 0)
    pixels = subject.preprocess([shipped(picture) for picture in SEEN])
    sure = subject.logits(pixels).softmax(-1).amax(1)
    unsure = twin.logits(pixels).softmax(-1).amax(1)
    assert float(sure.mean()) > 0.4 > 0.1 > float(unsure.mean())
    for layer, maps in twin.maps(pixels, range(twin.n_layers)).items():
        assert 0.05 < float((maps > 0).float().mean()) < 0.95, layer


@pytest.mark.weights
def test_ablating_the_head_leaves_the_bias(load: Callable[[str], VisionSubject]) -> None:
    subject = load("efficientnet-lite0")
    model: Any = subject.model
    pixels = subject.preprocess([shipped("chelsea.png")])
    everything = subject.logits(pixels, {17: list(range(1280))})
    torch.testing.assert_close(everything[0], model.classifier.bias)


def test_a_file_that_is_not_the_published_one_is_not_opened(tmp_path: Path) -> None:
    (file,) = known_weights()["efficientnet-lite0"].files
    with pytest.raises(UserError, match="dragoman weights pull efficientnet-lite0"):
        load_efficientnet("efficientnet-lite0", tmp_path)
    (tmp_path / "efficientnet-lite0").mkdir()
    forged = tmp_path / "efficientnet-lite0" / file.name
    with forged.open("wb") as opened:
        opened.truncate(file.bytes)
    with pytest.raises(IntegrityError, match="not the published files"):
        load_efficientnet("efficientnet-lite0", tmp_path)


def test_a_file_of_another_network_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (file,) = known_weights()["efficientnet-lite0"].files
    torch.save({"_fc.weight": torch.zeros(1000, 1280)}, tmp_path / file.name)
    monkeypatch.setattr(
        "dragoman.tools.subjects.efficientnet.require", lambda name, folder: tmp_path
    )
    with pytest.raises(IntegrityError, match="not weights of efficientnet-lite0"):
        load_efficientnet("efficientnet-lite0", tmp_path)


@pytest.mark.parametrize(
    ("published", "ours"),
    [
        ("_conv_stem.weight", "stem.conv.weight"),
        ("_bn0.running_var", "stem.norm.running_var"),
        ("_blocks.3._bn0.bias", "blocks.3.expand.norm.bias"),
        ("_blocks.12._depthwise_conv.weight", "blocks.12.depthwise.conv.weight"),
        ("_blocks.0._bn2.weight", "blocks.0.project.norm.weight"),
        ("_conv_head.weight", "head.conv.weight"),
        ("_bn1.bias", "head.norm.bias"),
        ("_fc.bias", "classifier.bias"),
    ],
)
def test_names_of_the_published_file(published: str, ours: str) -> None:
    assert _our_name(published) == ours
    assert ours in EfficientNetLite(VARIANTS["efficientnet-lite0"]).state_dict()


def test_the_names_in_the_table_of_weights() -> None:
    assert {weights.VISION, weights.LABELLER} == set(VARIANTS)
