"""Forward passes over the same images that differ from one layer on only.

Whatever is ablated at a layer, the modules before it give what they gave. They run once; the passes
after that get their outputs handed back, and only what stands between modules (sums, reshapes) is
computed again.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dragoman.tools.subjects.vision import VisionSubject


@contextmanager
def starting_at(
    subject: VisionSubject, layer: int, pixels: Float[Tensor, "batch 3 h w"]
) -> Iterator[None]:
    """Forward passes inside, all over `pixels`, run no module before `layer` and not its own.

    A module that takes part more than once is run as ever. Holds the outputs of the others for one
    batch, so batches should be small. `ToolError` if there is no such layer.
    """
    kept = _outputs_before(subject, layer, pixels)
    with ExitStack() as stack:
        for module, output in kept.items():
            # A forward in the instance's own dictionary goes before the class's.
            module.__dict__["forward"] = output.handed_back
            stack.callback(module.__dict__.pop, "forward")
        yield


class _Output(NamedTuple):
    """What a module gave, as it was before anything after it was computed in place."""

    tensor: Tensor
    changed: bool
    """What follows does change it, so each pass needs a copy."""

    def handed_back(self, *inputs: object, **options: object) -> Tensor:
        return self.tensor.clone() if self.changed else self.tensor


@torch.no_grad()
def _outputs_before(subject: VisionSubject, layer: int, pixels: Tensor) -> dict[nn.Module, _Output]:
    """What modules without parts gave, of those that run once and before the layer's end."""
    last = subject.module(layer)
    outputs: dict[nn.Module, tuple[Tensor, int, Tensor]] = {}
    calls: Counter[nn.Module] = Counter()
    reached = False

    def note(module: nn.Module, inputs: object, output: Any) -> None:
        nonlocal reached
        calls[module] += 1
        if not reached and isinstance(output, Tensor):
            # Each change in place counts a tensor's version up.
            outputs[module] = (output, output._version, output.clone())
        reached = reached or module is last

    with ExitStack() as stack:
        for module in subject.model.modules():
            if module is last or not any(True for _ in module.children()):
                stack.callback(module.register_forward_hook(note).remove)
        subject.model(pixels)
    kept = {}
    for module, (given, version, copy) in outputs.items():
        if calls[module] == 1:
            changed = given._version != version
            kept[module] = _Output(copy if changed else given, changed)
    return kept
