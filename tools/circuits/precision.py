"""Float32 maths on a subject whose weights are held in bfloat16 or float16.

Jacobians are differences of many nearly equal numbers: in half precision they are noise. The
weights stay as they are stored; each block's are widened while that block computes, and again when
a gradient passes back through it. So a subject costs half the memory, and its Jacobians are those
of the same weights in float32.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from dragoman.tools.subjects.language import LanguageSubject

_VOCABULARY_ROWS = 16_384
"""Rows of the unembedding that are widened at once."""


@contextmanager
def float32_maths(subject: LanguageSubject) -> Iterator[None]:
    """Every forward pass inside computes in float32; nothing changes for a float32 subject."""
    if not subject.is_narrow:
        yield
        return
    parts = subject.anatomy
    modules = [*subject.blocks, parts.final_norm, parts.project_out]
    with ExitStack() as stack:
        embedding = subject.model.get_input_embeddings()
        stack.callback(embedding.register_forward_hook(_widen_output).remove)
        for module in modules:
            if module is not None:
                # Somebody may have put a forward of his own before: that is widened, and put back.
                shadowed = module.__dict__.get("forward")
                module.forward = _widened(module, module.forward)
                stack.callback(put_back, module, shadowed)
        yield


def read_out(
    subject: LanguageSubject, finals: Float[Tensor, "batch d_model"]
) -> Float[Tensor, "batch d_vocab"]:
    """Logits of residual vectors, in float32 whatever the weights are held in."""
    if not subject.is_narrow:
        return subject.decode(finals)
    parts = subject.anatomy
    resid = finals.float()
    for module in (parts.final_norm, parts.project_out):
        if module is not None:
            resid = _widened(module, module.forward)(resid)
    unembedding: Any = parts.unembedding
    bias = getattr(unembedding, "bias", None)
    logits = torch.cat(
        [resid @ rows.float().T for rows in unembedding.weight.split(_VOCABULARY_ROWS)], dim=-1
    )
    if bias is not None:
        logits = logits + bias.float()
    if parts.logit_softcap is None:
        return logits
    return torch.tanh(logits / parts.logit_softcap) * parts.logit_softcap


def _widen_output(module: nn.Module, args: Any, output: Tensor) -> Tensor:
    return output.float()


def put_back(module: nn.Module, shadowed: Any) -> None:
    """The forward that `module` itself had before, or that of its class where it had none."""
    if shadowed is None:
        del module.forward
    else:
        module.forward = shadowed


def _widened(module: nn.Module, forward: Callable[..., Any]) -> Callable[..., Any]:
    """`forward` with float32 copies of the module's weights, gone when it returns."""

    def run(*args: Any, **kwargs: Any) -> Any:
        places = [
            (child, name, weight)
            for child in module.modules()
            for name, weight in child._parameters.items()
            if weight is not None and weight.dtype != torch.float32
        ]
        narrow: dict[int, Tensor] = {}
        try:
            for child, name, weight in places:
                wide = nn.Parameter(weight.detach().float(), requires_grad=False)
                narrow[wide.untyped_storage().data_ptr()] = weight
                child._parameters[name] = wide
            with saved_tensors_hooks(_packer(narrow), _unpack):
                return forward(*args, **kwargs)
        finally:
            for child, name, weight in places:
                child._parameters[name] = weight

    return run


class _Narrowed:
    """A saved tensor that is a view of widened weights: which weights, and which view."""

    def __init__(self, weight: Tensor, view: Tensor) -> None:
        self.weight = weight
        self.size, self.stride = view.size(), view.stride()
        self.offset = view.storage_offset()


def _packer(narrow: dict[int, Tensor]) -> Callable[[Tensor], Any]:
    # Sound while the widened copies live: nothing else can be at their addresses.
    def pack(saved: Tensor) -> Any:
        weight = narrow.get(saved.untyped_storage().data_ptr())
        return saved if weight is None else _Narrowed(weight, saved)

    return pack


def _unpack(packed: Any) -> Tensor:
    if not isinstance(packed, _Narrowed):
        saved: Tensor = packed
        return saved
    wide = packed.weight.detach().float().contiguous()
    return wide.as_strided(packed.size, packed.stride, packed.offset)
