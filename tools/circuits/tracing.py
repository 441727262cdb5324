"""Causal tracing: where clean activations, put into a corrupted run, bring the answer back.

Meng et al. 2022 (*Locating and editing factual associations in GPT*), section 2: one site and one
token at a time. What is restored is the share of the logit difference between the clean and the
corrupted run: 0 none, 1 all. It can leave that range.
"""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from dragoman.core.records import Site, SiteKind
from dragoman.tools.circuits.duels import MINIMUM_GAP, ROLES, Arena
from dragoman.tools.subjects.hooks import Edit

Corruption: TypeAlias = Literal["counterfactual", "noise"]
TRACED: tuple[SiteKind, ...] = ("resid_post", "attn_out", "mlp_out")

ROWS = 48
"""Patched runs at once: bounds the memory of the repeated cache."""
NOISE_DRAWS = 2


class Trace(NamedTuple):
    """What is restored at each layer and token of each duel; NaN beyond a prompt's end."""

    kind: SiteKind
    corruption: Corruption
    restored: Float[Tensor, "duel layer pos"]
    control: Float[Tensor, "duel layer pos"]
    """The same for a random change of the same length."""
    gap: Float[Tensor, " duel"]
    """Clean answer minus corrupted answer, in logits."""

    @property
    def usable(self) -> list[bool]:
        """Whether there is enough to restore, for each duel."""
        return [bool(each) for each in self.gap >= MINIMUM_GAP]


@torch.no_grad()
def trace(
    arena: Arena,
    kind: SiteKind,
    corruption: Corruption,
    seed: int,
    step: Callable[[int, int, str], None],
) -> Trace:
    """Patch every layer and token of every duel, one at a time."""
    draws = NOISE_DRAWS if corruption == "noise" else 1
    parts = [_trace_once(arena, kind, corruption, seed + draw, step) for draw in range(draws)]
    return Trace(
        kind,
        corruption,
        torch.stack([part.restored for part in parts]).mean(0),
        torch.stack([part.control for part in parts]).mean(0),
        torch.stack([part.gap for part in parts]).min(0).values,
    )


def _trace_once(
    arena: Arena,
    kind: SiteKind,
    corruption: Corruption,
    seed: int,
    step: Callable[[int, int, str], None],
) -> Trace:
    n_layers = arena.subject.n_layers
    sites = [Site(layer=layer, kind=kind) for layer in range(n_layers)]
    noise = arena.noise(seed) if corruption == "noise" else None
    rows = arena.corrupted if noise is None else arena.clean
    everyone = range(len(arena))
    corrupting = [] if noise is None else [_add(noise)]
    clean = arena.activations(arena.clean, sites)
    broken = arena.activations(rows, sites, corrupting)
    low = arena.answer(rows, everyone, corrupting)
    gap = arena.answer(arena.clean, everyone) - low
    generator = torch.Generator().manual_seed(seed)
    n_pos = max(arena.last) + 1
    restored = torch.full((len(arena), n_layers, n_pos), torch.nan)
    control = restored.clone()
    places = [(duel, at) for duel in everyone for at in range(arena.last[duel] + 1)]
    for layer, site in enumerate(sites):
        step(layer, n_layers, f"tracing {kind} ({corruption}), by layers")
        for start in range(0, len(places), ROWS):
            some = places[start : start + ROWS]
            duels, at = [duel for duel, _ in some], [place for _, place in some]
            here = broken[site][duels, at]
            change = clean[site][duels, at] - here
            drawn = torch.randn(change.shape, generator=generator).to(change)
            random = torch.nn.functional.normalize(drawn, dim=-1) * change.norm(
                dim=-1, keepdim=True
            )
            # The noise is the same in every run of a duel: only what is patched differs.
            before = [] if noise is None else [_add(noise[duels])]
            for found, put in ((restored, here + change), (control, here + random)):
                edits = [*before, put_at(site, at, put)]
                answers = arena.answer([rows[duel] for duel in duels], duels, edits)
                found[duels, layer, at] = ((answers - low[duels]) / gap[duels]).cpu()
    return Trace(kind, corruption, restored, control, gap.cpu())


def put_at(site: Site, at: Sequence[int], values: Float[Tensor, "batch d_model"]) -> Edit:
    """Replace the activations at one position of each row."""

    def apply(activations: Tensor) -> Tensor:
        changed = activations.clone()
        changed[torch.arange(len(at)), list(at)] = values
        return changed

    return Edit(site, apply)


def _add(noise: Float[Tensor, "batch pos d_model"]) -> Edit:
    # A batch of shorter prompts is padded less than the one that the noise was drawn for.
    return Edit(Site(layer=0, kind="resid_pre"), lambda resid: resid + noise[:, : resid.shape[1]])


def by_role(
    arena: Arena, values: Float[Tensor, "duel layer pos"], duels: Sequence[int]
) -> dict[str, Float[Tensor, "duel layer"]]:
    """Values gathered by what a token is: mean over the tokens of a role, for each duel.

    A duel without such a token has NaN; a role that no duel has is left out.
    """
    found: dict[str, Float[Tensor, "duel layer"]] = {}
    for role in ROLES:
        rows = []
        for duel in duels:
            at = [place for place in range(arena.last[duel] + 1) if arena.role(duel, place) == role]
            rows.append(
                values[duel, :, at].mean(-1) if at else torch.full(values.shape[1:2], torch.nan)
            )
        stacked = torch.stack(rows)
        if not bool(stacked.isnan().all()):
            found[role] = stacked
    return found
