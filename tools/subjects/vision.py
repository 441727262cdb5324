"""An image classifier under examination: spatial maps of its units, logits, ablations.

A unit is one channel of a layer (one MLP neuron in a vision transformer); its map says how active
it is at each place of the image. Transformers' patch tokens are laid out as the grid that they
were cut from, without the class token that stands before them (arXiv:2201.11114, section 4).
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, Literal, NamedTuple, Self, TypeAlias

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy import ndarray
from PIL import Image
from torch import Tensor, nn

from dragoman.core.errors import ToolError
from dragoman.core.records import Record, SubjectIdentity
from dragoman.tools.subjects.identity import weights_digest

Ablation: TypeAlias = Mapping[int, Sequence[int]]
"""By layer index, the units whose activations are set to zero at every place."""

Layout: TypeAlias = Literal["channels_first", "channels_last", "tokens"]
"""Axes of a module's output: (batch, unit, h, w), (batch, h, w, unit) or (batch, token, unit)."""


class VisionLayer(NamedTuple):
    """A place where units are read: the output of one module that a forward pass calls once."""

    name: str
    """As in `model.named_modules()`."""
    n_units: int
    grid: tuple[int, int]
    """Height and width of a unit's map at the subject's input size."""
    layout: Layout = "channels_first"


class Preprocessing(Record):
    """How pictures become input: as published with the weights."""

    size: tuple[int, int]
    """Height and width of the input."""
    resize: int | None
    """The shorter side before the centre is cut out; None squeezes the picture into `size`."""
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    """Of channels in 0..1."""
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"] = "bicubic"


class _LastLayerReached(Exception):
    """Ends a forward pass whose later layers nobody asked about."""


class VisionSubject:
    """Any image classifier as a torch module: frozen, float32, in eval mode."""

    kind: Literal["vision"] = "vision"

    def __init__(
        self,
        model: nn.Module,
        name: str,
        *,
        layers: Sequence[VisionLayer],
        preprocessing: Preprocessing,
        n_classes: int,
        labels: Sequence[str] = (),
        architecture: str = "",
    ) -> None:
        if labels and len(labels) != n_classes:
            raise ToolError(f"subject {name!r} has {n_classes} classes, but {len(labels)} labels")
        if not layers:
            raise ToolError(f"subject {name!r} has no layer with spatial maps")
        self.model = model.eval().requires_grad_(False)
        self.preprocessing = preprocessing
        self.labels = tuple(labels)
        self.n_classes = n_classes
        self._layers = tuple(layers)
        self._modules = [model.get_submodule(layer.name) for layer in layers]
        units = self.units
        self.identity = SubjectIdentity(
            name=name,
            digest=weights_digest(
                model, {"preprocessing": preprocessing.model_dump(mode="json"), "labels": labels}
            ),
            architecture=architecture or type(model).__name__,
            n_layers=len(units),
            d_model=units[-1],
            d_mlp=max(units),
            d_vocab=n_classes,
            n_parameters=sum(weight.numel() for weight in model.parameters()),
        )

    def with_model(self, model: nn.Module, name: str) -> Self:
        """Another network of the same architecture, read in the same way."""
        return type(self)(
            model,
            name,
            layers=self._layers,
            preprocessing=self.preprocessing,
            n_classes=self.n_classes,
            labels=self.labels,
            architecture=self.identity.architecture,
        )

    # Sizes

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers that can be read, first to last, by the names of their modules."""
        return tuple(layer.name for layer in self._layers)

    @property
    def units(self) -> tuple[int, ...]:
        """Units of each layer."""
        return tuple(layer.n_units for layer in self._layers)

    @property
    def n_layers(self) -> int:
        """Number of layers that can be read."""
        return len(self._layers)

    def n_units(self, layer: int) -> int:
        """Units of a layer; `ToolError` if there is no such layer."""
        self.check_layer(layer)
        return self._layers[layer].n_units

    def grid(self, layer: int) -> tuple[int, int]:
        """Height and width of the maps of a layer."""
        self.check_layer(layer)
        return self._layers[layer].grid

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.model.parameters()).device

    def module(self, layer: int) -> nn.Module:
        """The module whose output a layer is; `ToolError` if there is no such layer."""
        self.check_layer(layer)
        return self._modules[layer]

    def check_layer(self, layer: int, name: str = "layer") -> None:
        """`ToolError` unless the subject has that layer."""
        if not 0 <= layer < self.n_layers:
            raise ToolError(
                f"{name} {layer} is outside 0..{self.n_layers - 1} "
                f"of subject {self.identity.name!r}"
            )

    def check_units(self, layer: int, units: Sequence[int]) -> None:
        """`ToolError` unless the layer exists and has each of the units, none named twice."""
        n_units = self.n_units(layer)
        for unit in units:
            if not 0 <= unit < n_units:
                raise ToolError(
                    f"unit {unit} is outside 0..{n_units - 1} of layer {layer} "
                    f"({self._layers[layer].name}) of subject {self.identity.name!r}"
                )
        twice = sorted({unit for unit in units if units.count(unit) > 1})
        if twice:
            raise ToolError(f"units: {twice[0]} is named twice; name each unit once")

    # Pictures

    def view(self, image: Image.Image) -> UInt8[ndarray, "h w 3"]:
        """What of a picture the subject sees: resized and cut out, before normalisation."""
        height, width = self.preprocessing.size
        image = image.convert("RGB")
        resample = Image.Resampling[self.preprocessing.interpolation.upper()]
        if self.preprocessing.resize is None:
            return np.asarray(image.resize((width, height), resample))
        scale = self.preprocessing.resize / min(image.size)
        # A long strip may be thinner than the input once its shorter side fits.
        scale = max(scale, width / image.width, height / image.height)
        # Resize straight from the box that will be kept: a panorama never becomes huge.
        box_width, box_height = width / scale, height / scale
        left, top = (image.width - box_width) / 2, (image.height - box_height) / 2
        box = (left, top, left + box_width, top + box_height)
        return np.asarray(image.resize((width, height), resample, box=_inside(box, image.size)))

    def pixels(self, views: UInt8[ndarray, "batch h w 3"]) -> Float[Tensor, "batch 3 h w"]:
        """Views as input of the network."""
        scaled = torch.from_numpy(np.ascontiguousarray(views)).to(self.device)
        mean = torch.tensor(self.preprocessing.mean, device=self.device) * 255
        std = torch.tensor(self.preprocessing.std, device=self.device) * 255
        # Channels stay the innermost axis in memory: convolutions on a CPU are faster that way.
        return ((scaled.float() - mean) / std).permute(0, 3, 1, 2)

    def preprocess(self, images: Sequence[Image.Image]) -> Float[Tensor, "batch 3 h w"]:
        """Pictures as input of the network."""
        return self.pixels(np.stack([self.view(image) for image in images]))

    # Forward passes

    @torch.no_grad()
    def logits(
        self, pixels: Float[Tensor, "batch 3 h w"], ablate: Ablation | None = None
    ) -> Float[Tensor, "batch classes"]:
        """Class logits, with the units of `ablate` at zero."""
        with self._ablating(ablate or {}):
            return _tensor(self.model(pixels))

    @torch.no_grad()
    def moved_logits(
        self,
        pixels: Float[Tensor, "batch 3 h w"],
        layer: int,
        unit: int,
        change: Float[Tensor, "batch h w"],
    ) -> Float[Tensor, "batch classes"]:
        """Class logits with `change` added to the map of one unit."""
        self.check_units(layer, [unit])

        def hook(module: nn.Module, inputs: object, output: Any) -> Any:
            tensor = _tensor(output).clone()
            _as_maps(tensor, self._layers[layer])[:, unit] += change
            return (tensor, *output[1:]) if isinstance(output, tuple) else tensor

        handle = self._modules[layer].register_forward_hook(hook)
        try:
            return _tensor(self.model(pixels))
        finally:
            handle.remove()

    @torch.no_grad()
    def maps(
        self,
        pixels: Float[Tensor, "batch 3 h w"],
        layers: Sequence[int],
        ablate: Ablation | None = None,
    ) -> dict[int, Float[Tensor, "batch units h w"]]:
        """How active each unit of each layer is, place by place, in one forward pass.

        Nothing after the last of `layers` is computed. Ablated units are zero in their maps.
        """
        for layer in layers:
            self.check_layer(layer)
        found: dict[int, Tensor] = {}

        def keep(layer: int) -> Any:
            def hook(module: nn.Module, inputs: object, output: Any) -> None:
                found[layer] = _as_maps(_tensor(output), self._layers[layer])
                if len(found) == len(set(layers)):
                    raise _LastLayerReached

            return hook

        with self._ablating(ablate or {}), ExitStack() as stack:
            for layer in set(layers):
                handle = self._modules[layer].register_forward_hook(keep(layer))
                stack.callback(handle.remove)
            with suppress(_LastLayerReached):
                self.model(pixels)
        return {layer: found[layer] for layer in layers}

    @contextmanager
    def _ablating(self, ablate: Ablation) -> Iterator[None]:
        with ExitStack() as stack:
            for layer, units in ablate.items():
                self.check_units(layer, units)
                hook = _zeroing(list(units), self._layers[layer].layout)
                stack.callback(self._modules[layer].register_forward_hook(hook).remove)
            yield


def _zeroing(units: list[int], layout: Layout) -> Any:
    def hook(module: nn.Module, inputs: object, output: Any) -> Any:
        tensor = _tensor(output).clone()
        if layout == "channels_first":
            tensor[:, units] = 0
        else:
            tensor[..., units] = 0
        return (tensor, *output[1:]) if isinstance(output, tuple) else tensor

    return hook


def _as_maps(output: Tensor, layer: VisionLayer) -> Float[Tensor, "batch units h w"]:
    if layer.layout == "channels_first":
        return output
    if layer.layout == "channels_last":
        return output.permute(0, 3, 1, 2)
    height, width = layer.grid
    # Class, distillation and register tokens stand before the patches.
    patches = output[:, output.shape[1] - height * width :]
    return patches.reshape(len(output), height, width, -1).permute(0, 3, 1, 2)


def _tensor(output: Any) -> Tensor:
    """The tensor in what a module returns: itself, a tuple's first, or a record's logits."""
    found = getattr(output, "logits", output)
    tensor: Tensor = found[0] if isinstance(found, tuple) else found
    return tensor


def _inside(
    box: tuple[float, float, float, float], size: tuple[int, int]
) -> tuple[float, float, float, float]:
    left, top, right, bottom = box
    return max(left, 0.0), max(top, 0.0), min(right, float(size[0])), min(bottom, float(size[1]))
