"""Which layers of an image classifier can be read: found by watching one forward pass.

In networks with MLPs over places (vision transformers, Swin, ConvNeXt) a layer is what follows an
MLP's nonlinearity: its neurons. In other networks it is what a block or a lone convolution gives,
after the normalisation and nonlinearity that follow it, as in MILAN (arXiv:2201.11114, section 4).
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from dragoman.core.errors import UserError
from dragoman.tools.subjects.vision import Layout, VisionLayer

_NORMS = (nn.BatchNorm2d, nn.GroupNorm, nn.LayerNorm)
_PREFIX_TOKENS = 32
"""Class, distillation and register tokens: never more than so many stand before the patches."""
_POOLS = ("pool", "upsample", "flatten")
_ACTIVATIONS = (
    nn.ReLU,
    nn.ReLU6,
    nn.LeakyReLU,
    nn.PReLU,
    nn.ELU,
    nn.GELU,
    nn.SiLU,
    nn.Mish,
    nn.Hardswish,
    nn.Tanh,
    nn.Sigmoid,
)


class _Call(NamedTuple):
    """A module's turn in the forward pass, in the order in which modules finished."""

    name: str
    module: nn.Module
    shape: tuple[int, ...]
    after: nn.Module | None
    """The linear map or convolution that ran last."""


@torch.no_grad()
def find_layers(model: nn.Module, size: tuple[int, int]) -> list[VisionLayer]:
    """The layers of `model` at input `size`, in the order of the forward pass.

    `UserError` if none has spatial maps.
    """
    calls = _watch(model, size)
    times = [call.name for call in calls]
    once = [call for call in calls if times.count(call.name) == 1]
    layers = _mlp_layers(once, calls) or _block_layers(model, once)
    if not layers:
        raise UserError(f"{type(model).__name__}: no layer with spatial maps was found")
    return layers


def separate_buffers(model: nn.Module) -> nn.Module:
    """Let no activation overwrite its input: what was read of a layer would change afterwards."""
    for module in model.modules():
        if isinstance(getattr(module, "inplace", None), bool):
            module.inplace = False  # type: ignore[assignment]  # a plain attribute, no parameter
    return model


def _watch(model: nn.Module, size: tuple[int, int]) -> list[_Call]:
    calls: list[_Call] = []
    last: list[nn.Module | None] = [None]

    def note(name: str) -> Any:
        def hook(module: nn.Module, inputs: object, output: Any) -> None:
            found = output[0] if isinstance(output, tuple) and output else output
            if isinstance(module, nn.Linear | nn.Conv2d):
                last[0] = module
            if isinstance(found, Tensor):
                calls.append(_Call(name, module, tuple(found.shape), last[0]))

        return hook

    handles = [
        module.register_forward_hook(note(name)) for name, module in model.named_modules() if name
    ]
    try:
        model.eval()(torch.zeros(1, 3, *size))
    except (RuntimeError, ValueError, TypeError) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(
            f"{type(model).__name__} cannot read pictures of {size[0]} x {size[1]}: {reason[0]}"
        ) from error
    finally:
        for handle in handles:
            handle.remove()
    return calls


def _mlp_layers(once: Sequence[_Call], calls: Sequence[_Call]) -> list[VisionLayer]:
    cut = next((call.shape[2:] for call in calls if _is_patches(call)), None)
    layers = []
    for call in once:
        if not _is_activation(call.module) or not isinstance(call.after, nn.Linear):
            continue
        if len(call.shape) == 4:
            layers.append(_layer(call, call.shape[-1], call.shape[1:3], "channels_last"))
        elif len(call.shape) == 3:
            grid = _token_grid(call.shape[1], cut)
            # What mixes places instead (MLP-Mixer) has channels where tokens should be.
            if call.shape[1] - math.prod(grid) <= _PREFIX_TOKENS:
                layers.append(_layer(call, call.shape[-1], grid, "tokens"))
    return layers


def _block_layers(model: nn.Module, once: Sequence[_Call]) -> list[VisionLayer]:
    whole = {call.name for call in once if len(call.shape) == 4}
    candidates = _parts(model, "", whole, _n_convs(model) / 2)
    kept: list[_Call] = []
    pooled = True
    for call in once:
        if call.name not in candidates or len(call.shape) != 4:
            continue
        kind = type(call.module).__name__.lower()
        if any(word in kind for word in _POOLS):
            pooled = True
            continue
        # A convolution, its normalisation and its nonlinearity are one layer: the last of them.
        same = bool(kept) and kept[-1].shape == call.shape
        if (_is_activation(call.module) or _is_norm(call.module)) and same and not pooled:
            kept.pop()
        if isinstance(call.module, nn.Dropout | nn.Dropout2d | nn.Identity):
            continue
        kept.append(call)
        pooled = False
    spatial = [call for call in kept if call.shape[2] * call.shape[3] > 1]
    return [_layer(call, call.shape[1], call.shape[2:4], "channels_first") for call in spatial]


def _parts(module: nn.Module, prefix: str, whole: set[str], most: float) -> set[str]:
    """Names of the blocks and lone modules that a network is a plain sequence of.

    `whole` names what gives a spatial map; what gives something else is looked into, and so is
    what holds more than `most` convolutions: a backbone in its wrapper.
    """
    names = set()
    for name, child in module.named_children():
        path = f"{prefix}{name}"
        sequence = type(child) in {nn.Sequential, nn.ModuleList}
        if sequence or _n_convs(child) > most or (path not in whole and list(child.children())):
            names |= _parts(child, f"{path}.", whole, most)
        else:
            names.add(path)
    return names


def _is_patches(call: _Call) -> bool:
    """Whether this is the convolution that cuts a picture into patches."""
    module = call.module
    return (
        isinstance(module, nn.Conv2d)
        and module.kernel_size == module.stride
        and module.stride != (1, 1)
        and len(call.shape) == 4
    )


def _token_grid(n_tokens: int, cut: tuple[int, ...] | None) -> tuple[int, int]:
    if cut is not None and len(cut) == 2 and cut[0] * cut[1] <= n_tokens:
        return cut[0], cut[1]
    side = math.isqrt(n_tokens)
    return side, side


def _n_convs(module: nn.Module) -> int:
    """Convolutions in a module, at any depth."""
    return sum(isinstance(each, nn.Conv2d) for each in module.modules())


def _layer(call: _Call, n_units: int, grid: Sequence[int], layout: Layout) -> VisionLayer:
    return VisionLayer(call.name, n_units, (grid[0], grid[1]), layout)


def _is_activation(module: nn.Module) -> bool:
    return isinstance(module, _ACTIVATIONS) or "activations" in type(module).__module__


def _is_norm(module: nn.Module) -> bool:
    return isinstance(module, _NORMS)
