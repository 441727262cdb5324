"""Reading and editing activations at a `Site`, for any family that `anatomy` understands.

All hooks are placed by context managers and gone when the block ends, whatever happened in it.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dragoman.core.errors import ToolError
from dragoman.core.records import Site
from dragoman.tools.subjects.anatomy import Anatomy, BlockParts, replaced, tensor_of

Apply: TypeAlias = Callable[[Float[Tensor, "batch pos d"]], Float[Tensor, "batch pos d"]]


class Edit(NamedTuple):
    """A change of the activations at one site; autograd flows through it."""

    site: Site
    apply: Apply
    """Called with the site's activations, returns the new ones, in the same shape."""


class _Visit:
    """One site during one forward pass: hands its activations to `act`, puts back the result."""

    def __init__(self, parts: BlockParts, site: Site, act: Apply) -> None:
        self._parts, self._site, self._act = parts, site, act
        self._resid_pre: Tensor | None = None

    def install(self, stack: ExitStack) -> None:
        parts, kind = self._parts, self._site.kind
        if kind == "resid_mid" and not parts.sequential:
            raise ToolError("this subject adds attention and MLP in parallel: it has no resid_mid")

        def before(module: nn.Module, hook: Callable[..., Any]) -> None:
            handle = module.register_forward_pre_hook(hook, with_kwargs=True)
            stack.callback(handle.remove)

        def after(module: nn.Module, hook: Callable[..., Any]) -> None:
            stack.callback(module.register_forward_hook(hook).remove)

        match kind:
            case "resid_pre":
                before(parts.block, self._edit_input)
            case "resid_post":
                after(parts.block, self._edit_output)
            case "resid_mid":
                before(parts.block, self._remember_input)
                after(parts.attn_out, self._edit_resid_mid)
            case "attn_z":
                if parts.attention_projection is None:
                    raise ToolError("the heads of this subject's attention cannot be told apart")
                before(parts.block, self._remember_input)
                before(parts.attention_projection, self._edit_input)
            case "attn_out":
                after(parts.attn_out, self._edit_output)
            case "mlp_out":
                before(parts.block, self._remember_input)
                after(parts.mlp_out, self._edit_output)
            case "mlp_act":
                before(parts.block, self._remember_input)
                before(parts.down_projection, self._edit_input)

    def _edit_input(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if args:
            return (self._acted(args[0]), *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": self._acted(kwargs["hidden_states"])}

    def _remember_input(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        self._resid_pre = args[0] if args else kwargs["hidden_states"]

    def _edit_output(self, module: nn.Module, args: Any, output: Any) -> Any:
        return replaced(output, self._acted(tensor_of(output)))

    def _edit_resid_mid(self, module: nn.Module, args: Any, output: Any) -> Any:
        assert self._resid_pre is not None
        resid_mid = self._resid_pre + tensor_of(output)
        edited = self._act(resid_mid)
        return output if edited is resid_mid else replaced(output, edited - self._resid_pre)

    def _acted(self, tensor: Any) -> Tensor:
        # OPT flattens batch and position before its MLP; edits always see [batch pos d].
        if tensor.dim() == 2 and self._resid_pre is not None:
            batch, pos, _ = self._resid_pre.shape
            return self._act(tensor.view(batch, pos, -1)).reshape(tensor.shape)
        return self._act(tensor)


@contextmanager
def editing(anatomy: Anatomy, edits: Sequence[Edit]) -> Iterator[None]:
    """Every forward pass inside applies `edits`, in order, at each of its positions."""
    with ExitStack() as stack:
        for edit in edits:
            _Visit(anatomy.blocks[edit.site.layer], edit.site, edit.apply).install(stack)
        yield


@contextmanager
def capture(anatomy: Anatomy, sites: Sequence[Site]) -> Iterator[dict[Site, Tensor]]:
    """The activations of the last forward pass inside, by site; part of the autograd graph.

    Entered after `editing`, it sees what the edits left.
    """
    taken: dict[Site, Tensor] = {}

    def keep(site: Site) -> Apply:
        def take(activations: Tensor) -> Tensor:
            taken[site] = activations
            return activations

        return take

    with editing(anatomy, [Edit(site, keep(site)) for site in sites]):
        yield taken


def add_at(site: Site, positions: Sequence[int], directions: Float[Tensor, "batch d"]) -> Edit:
    """Add one direction per batch row at one (negative) position per row."""
    index = torch.tensor(positions)

    def apply(activations: Tensor) -> Tensor:
        rows = torch.arange(activations.shape[0])
        edited = activations.clone()
        edited[rows, index] = edited[rows, index] + directions
        return edited

    return Edit(site, apply)
