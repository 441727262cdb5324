"""Where the parts of a decoder-only transformer are, whatever its family calls them."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import nn

from dragoman.core.errors import UserError

_ATTENTION = ("self_attn", "attn", "attention")
_DOWN_PROJECTION = (
    "mlp.down_proj",
    "mlp.c_proj",
    "mlp.dense_4h_to_h",
    "mlp.fc_out",
    "mlp.fc2",
    "fc2",
)
_ATTENTION_PROJECTION = ("o_proj", "c_proj", "out_proj", "dense")
_FINAL_NORM = ("norm", "ln_f", "final_layer_norm")


@dataclass(frozen=True)
class BlockParts:
    """The modules of one block at which activations are read or edited."""

    block: nn.Module
    attn_out: nn.Module
    """Its output is what attention adds to the residual stream."""
    mlp_out: nn.Module
    """Its output is what the MLP adds to the residual stream."""
    down_projection: nn.Module
    """Its input is the MLP's neurons, after the nonlinearity (and the gate)."""
    attention_projection: nn.Module | None
    """Its input is what the heads found, one after the other; None where it was not found."""
    sequential: bool
    """The MLP reads the residual stream *after* attention wrote to it."""


@dataclass(frozen=True)
class Anatomy:
    """The parts of a causal language model."""

    blocks: tuple[BlockParts, ...]
    final_norm: nn.Module | None
    project_out: nn.Module | None
    unembedding: nn.Module
    logit_softcap: float | None


def dissect(model: Any) -> Anatomy:
    """Find the blocks, norms and projections; `UserError` if the family is not understood."""
    config = model.config
    n_layers = config.num_hidden_layers
    named_lists = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == n_layers
    ]
    if not named_lists:
        raise UserError(f"cannot find the {n_layers} blocks of a {config.model_type} model")
    name, blocks = min(named_lists, key=lambda pair: pair[0].count("."))
    decoder = model.get_submodule(name.rpartition(".")[0])
    return Anatomy(
        blocks=tuple(_block_parts(block, config.model_type) for block in blocks),
        final_norm=_child(decoder, _FINAL_NORM),
        project_out=_child(decoder, ("project_out",)),
        unembedding=model.get_output_embeddings(),
        logit_softcap=getattr(config, "final_logit_softcapping", None),
    )


def _block_parts(block: nn.Module, family: str) -> BlockParts:
    attention, down = _child(block, _ATTENTION), _child(block, _DOWN_PROJECTION)
    if attention is None or down is None:
        raise UserError(f"blocks of the family {family!r} are not understood")
    # Gemma 2 and later normalise once more before adding to the residual stream.
    sandwiched = _child(block, ("pre_feedforward_layernorm",)) is not None
    attn_norm = _child(block, ("post_attention_layernorm",)) if sandwiched else None
    mlp_norm = _child(block, ("post_feedforward_layernorm",)) if sandwiched else None
    parallel: bool = getattr(block, "use_parallel_residual", family in {"gptj", "phi", "codegen"})
    post_norm = not getattr(block, "do_layer_norm_before", True)
    return BlockParts(
        block=block,
        attn_out=attn_norm or attention,
        mlp_out=mlp_norm or _child(block, ("mlp",)) or down,
        down_projection=down,
        attention_projection=_child(attention, _ATTENTION_PROJECTION),
        sequential=not (parallel or post_norm),
    )


def _child(parent: nn.Module, names: Iterable[str]) -> nn.Module | None:
    for name in names:
        module: object = parent
        for part in name.split("."):
            module = getattr(module, part, None)
        if isinstance(module, nn.Module):
            return module
    return None


def tensor_of(output: Any) -> Any:
    """The activations in a module's output, be it a tensor or a tuple that starts with one."""
    return output[0] if isinstance(output, tuple) else output


def replaced(output: Any, tensor: Any) -> Any:
    """`output` with its activations exchanged, in the shape (tensor or tuple) that it came in."""
    return (tensor, *output[1:]) if isinstance(output, tuple) else tensor
