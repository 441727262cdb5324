"""Path patching between attention and MLP blocks (Goldowsky-Dill et al. 2023, Wang et al. 2022).

A path runs from one block's output, the sender, to another block's input, the receiver, or to the
logits. The corrupted run is kept but for one thing: the receiver sees its input as if the sender
had written what it writes in the clean run; all else, what other blocks read of the sender
included, stays as it was, and what follows from the receiver's new output follows. Because blocks
add to one residual stream this is a single pass: the change is added before the receiver reads and
taken away right after.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from dragoman.core.records import Site
from dragoman.tools.circuits.contributions import STEPS, Runs, replace_with
from dragoman.tools.circuits.duels import Arena
from dragoman.tools.subjects.hooks import Edit


class Path(NamedTuple):
    """From one block to a later one; a receiver of None stands for the logits."""

    sender: Site
    receiver: Site | None

    @property
    def name(self) -> str:
        """In words: 'mlp 1 → attn 4'."""
        return f"{block_name(self.sender)} → {block_name(self.receiver)}"


class PathEffects(NamedTuple):
    """By duel and path, as shares of the answer's gap."""

    paths: list[Path]
    measured: Float[Tensor, "duel path"]
    control: Float[Tensor, "duel path"]
    """The same for a random change of the same length, token by token."""
    predicted: Float[Tensor, "duel path"]


def block_name(block: Site | None) -> str:
    """'attn 4', 'mlp 1', 'logits'."""
    return "logits" if block is None else f"{block.kind.removesuffix('_out')} {block.layer}"


def paths_among(blocks: Sequence[Site]) -> list[Path]:
    """Every path from one of `blocks` to a later one, and from each to the logits."""
    ordered = sorted(blocks, key=_order)
    return [
        Path(sender, receiver)
        for place, sender in enumerate(ordered)
        for receiver in (*ordered[place + 1 :], None)
    ]


def _order(block: Site) -> tuple[int, bool]:
    return block.layer, block.kind == "mlp_out"


def port(
    receiver: Site | None, n_layers: int, change: Float[Tensor, "batch pos d_model"]
) -> list[Edit]:
    """The edits that show `change` to one receiver and to nothing else."""
    if receiver is None:
        return [Edit(Site(layer=n_layers - 1), lambda resid: resid + change)]
    layer = receiver.layer
    before, after = (
        (Site(layer=layer, kind="resid_pre"), Site(layer=layer, kind="resid_mid"))
        if receiver.kind == "attn_out"
        else (Site(layer=layer, kind="resid_mid"), Site(layer=layer, kind="resid_post"))
    )
    return [
        Edit(before, lambda resid: resid + change),
        Edit(after, lambda resid: resid - change),
    ]


def patch_paths(
    arena: Arena,
    runs: Runs,
    entry: Site,
    paths: Sequence[Path],
    seed: int,
    step: Callable[[int, int, str], None],
) -> PathEffects:
    """Measure and predict every path; `runs` holds the senders and `entry`, the embeddings."""
    n_layers, everyone = arena.subject.n_layers, range(len(arena))
    generator = torch.Generator().manual_seed(seed)
    measured: list[Tensor] = []
    control: list[Tensor] = []
    with torch.no_grad():
        for place, path in enumerate(paths):
            step(place, len(paths), "patching paths between blocks")
            change = runs.change(path.sender)
            drawn = torch.randn(change.shape, generator=generator).to(change)
            random = torch.nn.functional.normalize(drawn, dim=-1) * change.norm(
                dim=-1, keepdim=True
            )
            for found, shown in ((measured, change), (control, random)):
                edits = port(path.receiver, n_layers, shown)
                answers = arena.answer(arena.corrupted, everyone, edits)
                found.append((answers - runs.low) / runs.gap)
    predicted = _predict(arena, runs, entry, paths)
    return PathEffects(
        list(paths), torch.stack(measured, 1).cpu(), torch.stack(control, 1).cpu(), predicted
    )


def _predict(
    arena: Arena, runs: Runs, entry: Site, paths: Sequence[Path]
) -> Float[Tensor, "duel path"]:
    """Gradients at the receivers' ports, averaged over inputs between corrupted and clean."""
    receivers = list(dict.fromkeys(path.receiver for path in paths))
    total = torch.zeros(len(arena), len(paths))
    shape = runs.clean[entry]
    for number in range(STEPS):
        share = (number + 0.5) / STEPS
        between = runs.corrupted[entry] + share * runs.change(entry)
        leaves = [torch.zeros_like(shape).requires_grad_() for _ in receivers]
        edits = [replace_with(entry, between)]
        for receiver, leaf in zip(receivers, leaves, strict=True):
            edits += port(receiver, arena.subject.n_layers, leaf)
        with torch.enable_grad():
            answer = arena.answer(arena.corrupted, range(len(arena)), edits)
            gradients = torch.autograd.grad(answer.sum(), leaves)
        for place, path in enumerate(paths):
            gradient = gradients[receivers.index(path.receiver)]
            effect = (gradient * runs.change(path.sender)).sum((1, 2)) / runs.gap
            total[:, place] += effect.cpu() / STEPS
    return total
