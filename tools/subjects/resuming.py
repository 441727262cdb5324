"""Forward passes that start at a block in the middle, from what the block before it gave."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from dragoman.tools.subjects.anatomy import replaced


@contextmanager
def resuming(
    blocks: Sequence[nn.Module], shapes: Sequence[Any], resid: Float[Tensor, "batch pos d_model"]
) -> Iterator[None]:
    """Inside, `resid` stands in for the output of the last of `blocks`; none of them runs.

    `shapes` are those that `output_shapes` found.
    """
    with ExitStack() as stack:
        for block, shape in zip(blocks, shapes, strict=False):
            # A forward in the instance's own dictionary goes before the class's.
            block.__dict__["forward"] = _returning(resid, shape)
            stack.callback(block.__dict__.pop, "forward")
        yield


@contextmanager
def output_shapes(blocks: Sequence[nn.Module]) -> Iterator[list[Any]]:
    """For each block, the tuple that its output comes in (emptied), or None for a bare tensor.

    Of the forward passes inside; the list is filled by the first.
    """
    shapes: list[Any] = []

    def keep(module: nn.Module, args: Any, output: Any) -> None:
        shapes.append((None,) * len(output) if isinstance(output, tuple) else None)

    with ExitStack() as stack:
        for block in blocks:
            stack.callback(block.register_forward_hook(keep).remove)
        yield shapes


def _returning(resid: Tensor, shape: Any) -> Callable[..., Any]:
    return lambda *args, **kwargs: replaced(shape, resid)
