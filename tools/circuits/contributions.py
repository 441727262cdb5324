"""What each attention and MLP block contributes to a fact, predicted and measured.

Measured: the clean output of one block, put into the corrupted run at all tokens, restores a share
of the answer. Predicted: the same from gradients alone, without that run: the change of the block's
output times the answer's gradient there, averaged over inputs between corrupted and clean
(attribution patching with integrated gradients; Hanna et al. 2024, *Have faith in faithfulness*).
A prediction holds where it is within `TOLERANCE` of what the intervention restores.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from dragoman.core.records import Site, SiteKind
from dragoman.tools.circuits.duels import Arena
from dragoman.tools.subjects.hooks import Edit

BLOCK_KINDS: tuple[SiteKind, ...] = ("attn_out", "mlp_out")
STEPS = 6
"""Inputs between corrupted and clean at which the gradient is taken."""
TOLERANCE = 0.1
"""Of the whole answer: how far a prediction may be from its intervention."""


class Contributions(NamedTuple):
    """By duel and block, as shares of the answer's gap."""

    blocks: list[Site]
    measured: Float[Tensor, "duel block"]
    predicted: Float[Tensor, "duel block"]


class Runs(NamedTuple):
    """The clean and the corrupted run of every duel, at some sites."""

    clean: dict[Site, Float[Tensor, "duel pos d_model"]]
    corrupted: dict[Site, Float[Tensor, "duel pos d_model"]]
    low: Float[Tensor, " duel"]
    """The corrupted answer, in logits."""
    gap: Float[Tensor, " duel"]
    """Clean minus corrupted."""

    def change(self, site: Site) -> Float[Tensor, "duel pos d_model"]:
        """Clean minus corrupted activations."""
        return self.clean[site] - self.corrupted[site]


def blocks_of(n_layers: int) -> list[Site]:
    """Every attention and MLP block, in the order in which they write."""
    return [Site(layer=layer, kind=kind) for layer in range(n_layers) for kind in BLOCK_KINDS]


@torch.no_grad()
def run_both(arena: Arena, sites: list[Site]) -> Runs:
    """One clean and one corrupted run."""
    everyone = range(len(arena))
    low = arena.answer(arena.corrupted, everyone)
    return Runs(
        arena.activations(arena.clean, sites),
        arena.activations(arena.corrupted, sites),
        low,
        arena.answer(arena.clean, everyone) - low,
    )


def contribute(arena: Arena, step: Callable[[int, int, str], None]) -> Contributions:
    """Both figures for every block."""
    blocks = blocks_of(arena.subject.n_layers)
    entry = Site(layer=0, kind="resid_pre")
    runs = run_both(arena, [entry, *blocks])
    everyone = range(len(arena))
    measured = []
    with torch.no_grad():
        for place, block in enumerate(blocks):
            step(place, len(blocks), "patching attention and MLP blocks")
            edits = [replace_with(block, runs.clean[block])]
            measured.append((arena.answer(arena.corrupted, everyone, edits) - runs.low) / runs.gap)
    predicted = _predict(arena, runs, entry, blocks)
    return Contributions(blocks, torch.stack(measured, 1).cpu(), predicted)


def _predict(
    arena: Arena, runs: Runs, entry: Site, blocks: list[Site]
) -> Float[Tensor, "duel block"]:
    total = torch.zeros(len(arena), len(blocks))
    for number in range(STEPS):
        share = (number + 0.5) / STEPS
        between = runs.corrupted[entry] + share * runs.change(entry)
        leaves = {block: torch.zeros_like(runs.clean[block]).requires_grad_() for block in blocks}
        edits = [replace_with(entry, between), *(_add(*each) for each in leaves.items())]
        with torch.enable_grad():
            answer = arena.answer(arena.corrupted, range(len(arena)), edits)
            gradients = torch.autograd.grad(answer.sum(), list(leaves.values()))
        for place, (block, gradient) in enumerate(zip(blocks, gradients, strict=True)):
            effect = (gradient * runs.change(block)).sum((1, 2)) / runs.gap
            total[:, place] += effect.cpu() / STEPS
    return total


def replace_with(site: Site, values: Float[Tensor, "batch pos d_model"]) -> Edit:
    """Put `values` in the place of whatever a run has at `site`."""
    return Edit(site, lambda found: values)


def _add(site: Site, leaf: Float[Tensor, "batch pos d_model"]) -> Edit:
    return Edit(site, lambda found: found + leaf)
