"""Gated MLPs of many copies of one suffix, whose reverse pass is one matrix for each token.

A sweep carries as many rows as the residual stream has dimensions, and every row meets the same
activations. So at each token the MLP down(act(gate x) * (up x)) is better multiplied out before:

    J = W_down (diag(act'(gate x) * (up x)) W_gate + diag(act(gate x)) W_up)

takes one product of d_model x d_mlp x d_model, and each row one with d_model x d_model, where the
usual reverse pass takes three products of d_model x d_mlp a row. Exact up to float32 rounding.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dragoman.tools.subjects.language import LanguageSubject

_SAME = 1e-4
"""Relative to the largest output: a formula further from its module than this is not used."""


@contextmanager
def copied_mlps(subject: LanguageSubject) -> Iterator[None]:
    """Inside, every pass must be over copies of one row; gradients then cost about half as much.

    Nothing changes for MLPs that are not gated in the usual way.
    """
    with ExitStack() as stack:
        for block in subject.blocks:
            mlp = getattr(block, "mlp", None)
            if isinstance(mlp, nn.Module) and _is_gated(mlp) and "forward" not in mlp.__dict__:
                mlp.forward = _Copied(mlp)
                stack.callback(mlp.__dict__.pop, "forward")
        yield


def _is_gated(mlp: nn.Module) -> bool:
    projections = [getattr(mlp, name, None) for name in ("gate_proj", "up_proj", "down_proj")]
    return all(type(each) is nn.Linear for each in projections) and callable(
        getattr(mlp, "act_fn", None)
    )


class _Copied:
    """Stands for the `forward` of one gated MLP."""

    def __init__(self, mlp: Any) -> None:
        self._mlp, self._forward = mlp, mlp.forward

    def __call__(self, resid: Float[Tensor, "copy pos d_model"]) -> Tensor:
        if not resid.requires_grad:
            plain: Tensor = self._forward(resid)
            return plain
        out, jacobian = self._expand(resid[0].detach())
        expected: Tensor = self._forward(resid[:1].detach())[0]
        if (out - expected).abs().max() > _SAME * expected.abs().max():
            own: Tensor = self._forward(resid)
            return own
        function: Any = _Linearised  # untyped in torch
        found: Tensor = function.apply(resid, out, jacobian)
        return found

    def _expand(self, resid: Float[Tensor, "pos d_model"]) -> tuple[Tensor, Tensor]:
        mlp = self._mlp
        with torch.enable_grad():
            gate = mlp.gate_proj(resid).requires_grad_()
            active = mlp.act_fn(gate)
            (slope,) = torch.autograd.grad(active.sum(), gate)
        up, active = mlp.up_proj(resid), active.detach()
        by_gate, by_up, down = (
            each.weight.detach() for each in (mlp.gate_proj, mlp.up_proj, mlp.down_proj)
        )
        jacobian = torch.stack(
            [
                down @ torch.addcmul(a[:, None] * by_gate, b[:, None], by_up)
                for a, b in zip(slope * up, active, strict=True)
            ]
        )
        return mlp.down_proj(active * up), jacobian


class _Linearised(torch.autograd.Function):
    """A module's output at one row for all copies of it, and its Jacobian at each token."""

    @staticmethod
    def forward(
        ctx: Any,
        resid: Float[Tensor, "copy pos d_model"],
        out: Float[Tensor, "pos d_model"],
        jacobian: Float[Tensor, "pos d_model d_model"],
    ) -> Float[Tensor, "copy pos d_model"]:
        ctx.jacobian = jacobian
        return out.expand_as(resid).clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        jacobian: Tensor = ctx.jacobian
        return (grads[0].transpose(0, 1) @ jacobian).transpose(0, 1), None, None
