"""Vision subjects from local weights: what is read, what is refused, which layers are found."""

import json
import pickle
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional

from dragoman.core.errors import UserError
from dragoman.core.settings import load_settings
from dragoman.tools.subjects.loading import load_network
from dragoman.tools.subjects.vision import Preprocessing
from dragoman.tools.subjects.vision_loading import is_vision, load_vision, make_vision

PLAIN = Preprocessing(size=(32, 32), resize=32, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


def vit_folder(folder: Path, **changed: Any) -> Any:
    import transformers

    options: dict[str, Any] = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 48,
        "image_size": 32,
        "patch_size": 8,
        "id2label": {0: "circle", 1: "square", 2: "star"},
        "label2id": {"circle": 0, "square": 1, "star": 2},
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = transformers.ViTForImageClassification(transformers.ViTConfig(**options | changed))
    model.save_pretrained(folder)
    return model.eval()


@pytest.fixture
def pixels() -> torch.Tensor:
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def test_patch_tokens_become_the_grid_that_they_were_cut_from(
    tmp_path: Path, pixels: torch.Tensor
) -> None:
    model = vit_folder(tmp_path)
    subject = load_vision(str(tmp_path), tmp_path)
    assert subject.labels == ("circle", "square", "star")
    assert subject.units == (48, 48)
    assert subject.grid(0) == (4, 4)
    # By hand: the first block's MLP neurons at each of 17 tokens, of which the first is the class.
    block = model.vit.layers[0]
    hidden = model.vit.embeddings(pixels)
    with torch.no_grad():
        attended = block.attention(block.layernorm_before(hidden))[0] + hidden
        neurons = functional.gelu(block.mlp.fc1(block.layernorm_after(attended)))
    assert neurons.shape == (2, 17, 48)
    maps = subject.maps(pixels, [0])[0]
    assert maps.shape == (2, 48, 4, 4)
    for row in range(4):
        for column in range(4):
            torch.testing.assert_close(
                maps[:, :, row, column], neurons[:, 1 + 4 * row + column], atol=1e-5, rtol=1e-4
            )
    torch.testing.assert_close(subject.logits(pixels), model(pixels).logits)


def test_a_change_of_one_patch_is_seen_at_its_place(tmp_path: Path, pixels: torch.Tensor) -> None:
    """An off-by-one of the class token would shift the place by one column."""
    vit_folder(tmp_path, num_hidden_layers=1)
    subject = load_vision(str(tmp_path), tmp_path)
    changed = pixels.clone()
    changed[:, :, 16:24, 8:16] += 3
    moved = (subject.maps(changed, [0])[0] - subject.maps(pixels, [0])[0]).abs().sum((0, 1))
    assert divmod(int(moved.argmax()), 4) == (2, 1)


def test_grids_need_not_be_square(tmp_path: Path) -> None:
    vit_folder(tmp_path, image_size=[16, 32])
    (tmp_path / "preprocessor_config.json").write_text(
        json.dumps({"size": {"height": 16, "width": 32}, "image_mean": [0.5] * 3})
    )
    subject = load_vision(str(tmp_path), tmp_path)
    assert subject.grid(0) == (2, 4)
    assert subject.preprocessing.size == (16, 32)


def test_ablating_a_neuron_of_a_transformer_zeroes_it_at_every_token(
    tmp_path: Path, pixels: torch.Tensor
) -> None:
    model = vit_folder(tmp_path)
    subject = load_vision(str(tmp_path), tmp_path)
    ablated = subject.logits(pixels, {1: [7, 9]})
    model.vit.layers[1].mlp.fc2.weight.data[:, [7, 9]] = 0
    torch.testing.assert_close(ablated, model(pixels).logits)


@pytest.mark.parametrize(
    ("given", "size", "resize"),
    [
        ({"size": 32, "do_center_crop": False}, (32, 32), None),
        ({"size": {"height": 32, "width": 32}}, (32, 32), None),
        ({"size": {"shortest_edge": 40}, "crop_size": 32, "do_center_crop": True}, (32, 32), 40),
        (
            {"size": 40, "crop_size": {"height": 32, "width": 32}, "do_center_crop": True},
            (32, 32),
            40,
        ),
    ],
)
def test_preprocessing_is_read_from_its_file(
    tmp_path: Path, given: dict[str, Any], size: tuple[int, int], resize: int | None
) -> None:
    vit_folder(tmp_path)
    given |= {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6], "resample": 3}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(given))
    preprocessing = load_vision(str(tmp_path), tmp_path).preprocessing
    assert (preprocessing.size, preprocessing.resize) == (size, resize)
    assert preprocessing.mean == (0.1, 0.2, 0.3)
    assert preprocessing.std == (0.4, 0.5, 0.6)
    assert preprocessing.interpolation == "bicubic"


_SMALL: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "image_size": 32,
    "patch_size": 8,
}


@pytest.mark.parametrize(
    ("family", "options", "units", "grids"),
    [
        ("DeiT", _SMALL, (48, 48), [(4, 4), (4, 4)]),
        ("Beit", _SMALL, (48, 48), [(4, 4), (4, 4)]),
        (
            "Swin",
            {
                "image_size": 32,
                "patch_size": 2,
                "embed_dim": 8,
                "depths": [1, 1],
                "num_heads": [2, 2],
                "window_size": 4,
            },
            (32, 64),
            [(16, 16), (8, 8)],
        ),
        (
            "ResNet",
            {
                "embedding_size": 8,
                "hidden_sizes": [8, 16],
                "depths": [1, 2],
                "layer_type": "basic",
                "image_size": 32,
            },
            (8, 8, 16, 16),
            [(8, 8), (8, 8), (4, 4), (4, 4)],
        ),
        (
            "ConvNext",
            {"hidden_sizes": [8, 16], "depths": [1, 2], "num_stages": 2, "image_size": 32},
            (32, 64, 64),
            [(8, 8), (4, 4), (4, 4)],
        ),
    ],
)
def test_families_of_image_classifiers(
    tmp_path: Path,
    pixels: torch.Tensor,
    family: str,
    options: dict[str, Any],
    units: tuple[int, ...],
    grids: list[tuple[int, int]],
) -> None:
    import transformers

    config = getattr(transformers, f"{family}Config")(num_labels=5, **options)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = getattr(transformers, f"{family}ForImageClassification")(config).eval()
    model.save_pretrained(tmp_path)
    subject = load_vision(str(tmp_path), tmp_path)
    assert subject.units == units
    assert [subject.grid(layer) for layer in range(subject.n_layers)] == grids
    torch.testing.assert_close(subject.logits(pixels), model(pixels).logits, atol=1e-5, rtol=1e-4)
    for layer, maps in subject.maps(pixels, range(subject.n_layers)).items():
        assert tuple(maps.shape[1:]) == (units[layer], *grids[layer])


def test_a_folder_is_told_by_its_configuration(tmp_path: Path, make_tiny: Any) -> None:
    vit_folder(tmp_path / "vit")
    assert is_vision(str(tmp_path / "vit"))
    assert load_network(str(tmp_path / "vit"), load_settings()).kind == "vision"
    language = make_tiny()
    language.model.save_pretrained(tmp_path / "llama")
    language.tokenizer.save_pretrained(tmp_path / "llama")
    assert not is_vision(str(tmp_path / "llama"))
    assert load_network(str(tmp_path / "llama"), load_settings()).kind == "language"
    assert not is_vision("smollm2")
    assert not is_vision(str(tmp_path / "absent"))


def test_a_folder_that_names_code_is_refused(tmp_path: Path) -> None:
    vit_folder(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"auto_map": {"AutoModel": "x.Y"}}))
    with pytest.raises(UserError, match="auto_map could make it run foreign code"):
        load_network(str(tmp_path), load_settings())


class Residual(nn.Module):
    """Adds to its input; its nonlinearity runs twice, so it is no layer of its own."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = (nn.Conv2d(width, width, 3, padding=1) for _ in range(2))
        self.relu = nn.ReLU(inplace=True)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        hidden = self.conv2(self.relu(self.conv1(images)))
        made: torch.Tensor = self.relu(hidden + images)
        return made


class SmallResNet(nn.Module):
    """Stem, two stages of residual blocks, pooling, classifier."""

    def __init__(self, n_classes: int = 1000, width: int = 4) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(2)
        self.layer1 = nn.Sequential(Residual(width), Residual(width))
        self.layer2 = nn.Sequential(nn.Conv2d(width, 2 * width, 1), Residual(2 * width))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(2 * width, n_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        hidden = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        hidden = self.avgpool(self.layer2(self.layer1(hidden)))
        logits: torch.Tensor = self.fc(hidden.flatten(1))
        return logits


class Outer(nn.Module):
    """A backbone inside a wrapper, as detection and segmentation code has it."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = SmallResNet(5)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        made: torch.Tensor = self.backbone(images)
        return made


class Mixer(nn.Module):
    """MLPs over places and over channels in turn: only the latter have units with a place."""

    def __init__(self) -> None:
        super().__init__()
        self.cut = nn.Conv2d(3, 64, 8, stride=8)
        self.over_places = nn.Sequential(nn.Linear(16, 40), nn.GELU(), nn.Linear(40, 16))
        self.over_channels = nn.Sequential(nn.Linear(64, 80), nn.GELU(), nn.Linear(80, 64))
        self.fc = nn.Linear(64, 5)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        hidden = self.cut(images).flatten(2)
        hidden = (hidden + self.over_places(hidden)).transpose(1, 2)
        hidden = hidden + self.over_channels(hidden)
        logits: torch.Tensor = self.fc(hidden.mean(1))
        return logits


class ChannelsLast(nn.Module):
    """An MLP over places whose channels come last, as in ConvNeXt and Swin."""

    def __init__(self) -> None:
        super().__init__()
        self.cut = nn.Conv2d(3, 8, 4, stride=4)
        self.wide, self.act, self.narrow = nn.Linear(8, 24), nn.GELU(), nn.Linear(24, 8)
        self.fc = nn.Linear(8, 5)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        hidden = self.cut(images).permute(0, 2, 3, 1)
        hidden = hidden + self.narrow(self.act(self.wide(hidden)))
        logits: torch.Tensor = self.fc(hidden.mean((1, 2)))
        return logits


def test_blocks_of_a_residual_network_are_its_layers(pixels: torch.Tensor) -> None:
    names = ("relu", "layer1.0", "layer1.1", "layer2.0", "layer2.1")
    assert make_vision(SmallResNet(5), "small", PLAIN).layers == names
    inside = make_vision(Outer(), "wrapped", PLAIN)
    assert inside.layers == tuple(f"backbone.{name}" for name in names)
    # No nonlinearity may overwrite what was read before it ran.
    model = SmallResNet(5)
    subject = make_vision(model, "small", PLAIN)
    before_block = subject.maps(pixels, [3])[3].clone()
    assert torch.equal(subject.maps(pixels, [3, 4])[3], before_block)
    assert (before_block < 0).any()


def test_channels_that_come_last_are_read_and_ablated_as_units(pixels: torch.Tensor) -> None:
    model = ChannelsLast()
    subject = make_vision(model, "last", PLAIN)
    assert (subject.layers, subject.units, subject.grid(0)) == (("act",), (24,), (8, 8))
    with torch.no_grad():
        hidden = model.act(model.wide(model.cut(pixels).permute(0, 2, 3, 1)))
    torch.testing.assert_close(subject.maps(pixels, [0])[0], hidden.permute(0, 3, 1, 2))
    ablated = subject.logits(pixels, {0: [3]})
    model.narrow.weight.data[:, 3] = 0
    torch.testing.assert_close(ablated, model(pixels))


def test_what_mixes_places_has_no_units_with_a_place() -> None:
    subject = make_vision(Mixer(), "mixer", PLAIN)
    assert (subject.layers, subject.units) == (("over_channels.1",), (80,))
    assert subject.grid(0) == (4, 4)


def test_the_inside_of_a_block_is_not_taken_for_blocks() -> None:
    def block(width: int) -> nn.Module:
        class Block(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.conv = nn.Sequential(
                    nn.Sequential(nn.Conv2d(width, 2 * width, 1), nn.ReLU6()),
                    nn.Sequential(nn.Conv2d(2 * width, width, 1), nn.BatchNorm2d(width)),
                )

            def forward(self, images: torch.Tensor) -> torch.Tensor:
                made: torch.Tensor = images + self.conv(images)
                return made

        return Block()

    body = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), *(block(4) for _ in range(3)))
    model = nn.Sequential(body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5))
    assert make_vision(model, "blocks", PLAIN).layers == ("0.0", "0.1", "0.2", "0.3")


def test_what_classifies_nothing_is_no_subject() -> None:
    with pytest.raises(UserError, match="no layer with spatial maps"):
        make_vision(nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 5)), "flat", PLAIN)
    with pytest.raises(UserError, match="no class logits"):
        make_vision(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), "maps", PLAIN)
    with pytest.raises(UserError, match="cannot read pictures of 32 x 32"):
        make_vision(nn.Sequential(nn.Conv2d(1, 4, 3)), "grey", PLAIN)


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in with torchvision's interface: its own release needs another torch."""
    preset = SimpleNamespace(
        crop_size=[32],
        resize_size=[36],
        mean=[0.4, 0.5, 0.6],
        std=[0.2, 0.3, 0.4],
        interpolation=SimpleNamespace(value="bilinear"),
    )
    models: Any = SimpleNamespace(
        list_models=lambda: ["small_resnet"],
        get_model=lambda name, weights, num_classes: SmallResNet(num_classes),
        get_model_weights=lambda name: SimpleNamespace(
            DEFAULT=SimpleNamespace(transforms=lambda: preset)
        ),
    )
    monkeypatch.setitem(sys.modules, "torchvision", SimpleNamespace(models=models))
    monkeypatch.setitem(sys.modules, "torchvision.models", models)


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize("suffix", ["safetensors", "pth", "nested.pth"])
def test_weights_of_a_library_are_read_from_a_local_file(
    tmp_path: Path, pixels: torch.Tensor, suffix: str
) -> None:
    model = SmallResNet(7).eval()
    path = tmp_path / f"weights.{suffix}"
    if suffix == "safetensors":
        save_file(model.state_dict(), path)
    elif suffix == "pth":
        torch.save(model.state_dict(), path)
    else:
        state = {f"module.{key}": weight for key, weight in model.state_dict().items()}
        torch.save({"epoch": 3, "state_dict": state}, path)
    name = f"torchvision:small_resnet@{path}"
    assert is_vision(name)
    subject = load_vision(name, tmp_path)
    assert subject.n_classes == 7
    assert subject.labels == ()
    assert subject.preprocessing.resize == 36
    assert subject.preprocessing.mean == (0.4, 0.5, 0.6)
    torch.testing.assert_close(subject.logits(pixels), model(pixels))


@pytest.mark.usefixtures("library")
def test_a_thousand_classes_are_those_of_imagenet(tmp_path: Path) -> None:
    save_file(SmallResNet().state_dict(), tmp_path / "weights.safetensors")
    subject = load_vision(f"torchvision:small_resnet@{tmp_path}/weights.safetensors", tmp_path)
    assert subject.labels[0] == "tench"
    assert len(set(subject.labels)) == subject.n_classes == 1000


class Evil:
    def __reduce__(self) -> Any:
        return (print, ("code from a weight file",))


@pytest.mark.usefixtures("library")
def test_what_is_no_weight_file_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def attempt(name: str) -> Any:
        return load_vision(f"torchvision:small_resnet@{tmp_path / name}", tmp_path)

    with pytest.raises(UserError, match="no such file"):
        attempt("absent.pth")
    (tmp_path / "evil.pth").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(UserError, match=r"evil\.pth' cannot be read"):
        attempt("evil.pth")
    torch.save({"weights": Evil()}, tmp_path / "evil2.pth")
    with pytest.raises(UserError, match=r"evil2\.pth' cannot be read"):
        attempt("evil2.pth")
    assert "code from" not in capsys.readouterr().out
    (tmp_path / "broken.safetensors").write_bytes(b"nothing")
    with pytest.raises(UserError, match="cannot be read"):
        attempt("broken.safetensors")
    torch.save({"note": "no weights"}, tmp_path / "note.pth")
    with pytest.raises(UserError, match="holds no state dict"):
        attempt("note.pth")
    save_file(SmallResNet(width=8).state_dict(), tmp_path / "wide.safetensors")
    with pytest.raises(UserError, match="do not fit this architecture: size mismatch"):
        attempt("wide.safetensors")
    with pytest.raises(UserError, match=r"no image classifier 'smallnet' \(similar: small_resnet"):
        load_vision(f"torchvision:smallnet@{tmp_path}/note.pth", tmp_path)


def test_a_missing_library_and_missing_weights_are_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UserError, match="needs timm, which cannot be imported here"):
        load_vision("timm:vit_tiny@weights.safetensors", tmp_path)
    with pytest.raises(UserError, match="add its weights: timm:vit_tiny@/path/to/weights"):
        load_vision("timm:vit_tiny", tmp_path)
    with pytest.raises(UserError, match="neither one of efficientnet-lite0"):
        load_vision("resnet18", tmp_path)
    with pytest.raises(UserError, match="dragoman weights pull efficientnet-lite0"):
        load_vision("efficientnet-lite0", tmp_path)
