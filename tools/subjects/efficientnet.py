"""EfficientNet-Lite0 and -Lite2 on ImageNet-1k, from their pinned weight files.

Tan & Le 2019 (arXiv:1905.11946), in the variant for small devices that its authors published in
2020: no squeeze-and-excitation, ReLU6 for swish, stem, head and the single-block stages unscaled.
The weights were trained in TensorFlow, whose padding and normalisation constants are kept.

Units are channels after a nonlinearity: of the stem, of each block's depthwise convolution (the
block's widest point, as the hidden layer is in an MLP), and of the head.
"""

import functools
import json
import math
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from dragoman.core.errors import IntegrityError
from dragoman.tools.subjects.vision import Preprocessing, VisionLayer, VisionSubject
from dragoman.tools.weights import known_weights, require

N_CLASSES = 1000
_STEM, _HEAD = 32, 1280
_NORM_EPSILON = 1e-3


class Variant(NamedTuple):
    """A member of the family: the two scales of the paper, and the input it was trained for."""

    width: float
    depth: float
    size: int


class _Stage(NamedTuple):
    kernel: int
    repeats: int
    channels: int
    expansion: int
    stride: int


VARIANTS = {
    "efficientnet-lite0": Variant(1.0, 1.0, 224),
    "efficientnet-lite2": Variant(1.1, 1.2, 260),
}

_STAGES = (
    _Stage(kernel=3, repeats=1, channels=16, expansion=1, stride=1),
    _Stage(kernel=3, repeats=2, channels=24, expansion=6, stride=2),
    _Stage(kernel=5, repeats=2, channels=40, expansion=6, stride=2),
    _Stage(kernel=3, repeats=3, channels=80, expansion=6, stride=2),
    _Stage(kernel=5, repeats=3, channels=112, expansion=6, stride=1),
    _Stage(kernel=5, repeats=4, channels=192, expansion=6, stride=2),
    _Stage(kernel=3, repeats=1, channels=320, expansion=6, stride=1),
)


class _SameConv(nn.Conv2d):
    """A convolution padded as TensorFlow does: the odd pixel goes to the right and the bottom."""

    def forward(self, images: Float[Tensor, "batch c h w"]) -> Float[Tensor, "batch d h2 w2"]:
        padding = []
        for size, kernel, stride in zip(
            images.shape[:1:-1], self.kernel_size[::-1], self.stride[::-1], strict=True
        ):
            total = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
            padding += [total // 2, total - total // 2]
        symmetric = padding[0] == padding[1] and padding[2] == padding[3]
        if not symmetric:
            images, padding = functional.pad(images, padding), [0] * 4
        return functional.conv2d(
            images,
            self.weight,
            self.bias,
            self.stride,
            (padding[2], padding[0]),
            self.dilation,
            self.groups,
        )


class ConvUnit(nn.Module):
    """Convolution, batch normalisation and, where it has one, a nonlinearity."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int = 1,
        stride: int = 1,
        groups: int = 1,
        *,
        active: bool = True,
    ) -> None:
        super().__init__()
        self.conv = _SameConv(inputs, outputs, kernel, stride, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(outputs, eps=_NORM_EPSILON)
        self.active = active

    def forward(self, images: Float[Tensor, "batch c h w"]) -> Float[Tensor, "batch d h2 w2"]:
        """Normalised, and between 0 and 6 where the unit is `active`."""
        normalised: Tensor = self.norm(self.conv(images))
        return functional.relu6(normalised, inplace=True) if self.active else normalised


class InvertedBottleneck(nn.Module):
    """Widen, convolve each channel by itself, narrow; added to the input where shapes agree."""

    def __init__(self, stage: _Stage, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        hidden = inputs * stage.expansion
        self.expand = nn.Identity() if stage.expansion == 1 else ConvUnit(inputs, hidden)
        self.depthwise = ConvUnit(hidden, hidden, stage.kernel, stride, groups=hidden)
        self.project = ConvUnit(hidden, outputs, active=False)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, images: Float[Tensor, "batch c h w"]) -> Float[Tensor, "batch d h2 w2"]:
        """The block's output, which has no nonlinearity of its own."""
        out: Tensor = self.project(self.depthwise(self.expand(images)))
        return out + images if self.residual else out


class EfficientNetLite(nn.Module):
    """The classifier: stem, blocks, head, mean over places, one linear map."""

    def __init__(self, variant: Variant) -> None:
        super().__init__()
        self.stem = ConvUnit(3, _STEM, 3, 2)
        blocks = []
        inputs = _STEM
        for stage in _STAGES:
            outputs = _scaled(stage.channels, variant.width)
            # Of the Lite models, the first and last stage keep their one block at any depth.
            repeats = 1 if stage.repeats == 1 else math.ceil(stage.repeats * variant.depth)
            for index in range(repeats):
                stride = stage.stride if index == 0 else 1
                blocks.append(InvertedBottleneck(stage, inputs, outputs, stride))
                inputs = outputs
        self.blocks = nn.ModuleList(blocks)
        self.head = ConvUnit(inputs, _HEAD)
        self.classifier = nn.Linear(_HEAD, N_CLASSES)

    def forward(self, images: Float[Tensor, "batch 3 h w"]) -> Float[Tensor, "batch classes"]:
        """Class logits."""
        hidden = self.stem(images)
        for block in self.blocks:
            hidden = block(hidden)
        logits: Tensor = self.classifier(self.head(hidden).mean(dim=(2, 3)))
        return logits


def load_efficientnet(name: str, weights_folder: Path) -> VisionSubject:
    """`efficientnet-lite0` or `efficientnet-lite2`; `UserError` where the weights are not here."""
    folder = require(name, weights_folder)
    (file,) = known_weights()[name].files
    model = EfficientNetLite(VARIANTS[name])
    # `require` has just held the file against its pinned sha256; tensors are all that is read.
    state = torch.load(folder / file.name, map_location="cpu", weights_only=True)
    try:
        model.load_state_dict({_our_name(key): weight for key, weight in state.items()})
    except RuntimeError as error:
        raise IntegrityError(f"{folder / file.name}: not weights of {name}") from error
    return efficientnet_subject(model, name, labels=imagenet_labels())


def efficientnet_subject(
    model: EfficientNetLite, name: str, *, variant: str | None = None, labels: tuple[str, ...] = ()
) -> VisionSubject:
    """A subject around a network of the family; `variant` where the name is another one."""
    size = VARIANTS[variant or name].size
    layers = [VisionLayer("stem", _STEM, (math.ceil(size / 2),) * 2)]
    grid = math.ceil(size / 2)
    for index, block in enumerate(model.blocks):
        assert isinstance(block, InvertedBottleneck)
        conv = block.depthwise.conv
        grid = math.ceil(grid / conv.stride[0])
        layers.append(VisionLayer(f"blocks.{index}.depthwise", conv.out_channels, (grid, grid)))
    layers.append(VisionLayer("head", _HEAD, (grid, grid)))
    return VisionSubject(
        model,
        name,
        layers=layers,
        preprocessing=Preprocessing(
            size=(size, size),
            # The authors' evaluation keeps 32 pixels around the crop.
            resize=size + 32,
            mean=(127 / 255,) * 3,
            std=(128 / 255,) * 3,
        ),
        n_classes=N_CLASSES,
        labels=labels,
        architecture=variant or name,
    )


@functools.cache
def imagenet_labels() -> tuple[str, ...]:
    """The names of the 1000 classes of ImageNet-1k, in the usual order."""
    path = Path(__file__).resolve().parents[1] / "data" / "imagenet_labels.json"
    return tuple(json.loads(path.read_text("utf-8")))


def _scaled(channels: int, width: float) -> int:
    """The nearest multiple of 8, never more than a tenth below the exact width."""
    exact = channels * width
    rounded = max(8, int(exact + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * exact else rounded + 8


def _our_name(published: str) -> str:
    """A parameter's name here for its name in the published file."""
    if published.startswith("_fc."):
        return published.replace("_fc.", "classifier.")
    part, _, rest = published.rpartition("_blocks.")[2].partition(".")
    if not published.startswith("_blocks."):
        ours = {"_conv_stem": "stem.conv", "_bn0": "stem.norm"}
        ours |= {"_conv_head": "head.conv", "_bn1": "head.norm"}
        return f"{ours[part]}.{rest}"
    kind, _, leaf = rest.partition(".")
    ours = {"_expand_conv": "expand.conv", "_bn0": "expand.norm"}
    ours |= {"_depthwise_conv": "depthwise.conv", "_bn1": "depthwise.norm"}
    ours |= {"_project_conv": "project.conv", "_bn2": "project.norm"}
    return f"blocks.{part}.{ours[kind]}.{leaf}"
