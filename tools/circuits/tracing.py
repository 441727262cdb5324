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
    gap: Float[Tensor, " duel"]
    """Clean answer minus corrupted answer, in logits."""

    @property
    def usable(self) -> list[bool]:
        """Whether there is enough to restore, for each duel."""
        return [bool(each) for each in self.gap >= MINIMUM_GAP]


class Corrupted:
    """The corrupted run of every duel beside the clean one, ready to be patched."""

    def __init__(
        self, arena: Arena, kind: SiteKind, corruption: Corruption, layers: Sequence[int], seed: int
    ) -> None:
        """`seed` is of the noise."""
        self.arena, self.sites = arena, [Site(layer=layer, kind=kind) for layer in layers]
        self._noise = arena.noise(seed) if corruption == "noise" else None
        self._rows = arena.corrupted if self._noise is None else arena.clean
        everyone = range(len(arena))
        self._clean = arena.activations(arena.clean, self.sites)
        self._broken = arena.activations(self._rows, self.sites, self._corrupting(everyone))
        with torch.no_grad():
            self._low = arena.answer(self._rows, everyone, self._corrupting(everyone))
            self.gap = arena.answer(arena.clean, everyone) - self._low

    def _corrupting(self, duels: Sequence[int]) -> list[Edit]:
        # The noise is the same in every run of a duel: only what is patched differs.
        return [] if self._noise is None else [_add(self._noise[list(duels)])]

    @torch.no_grad()
    def patch(
        self,
        site: Site,
        places: Sequence[tuple[int, int]],
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, " place"]:
        """What is restored by the clean activations at each (duel, position), one at a time.

        With a generator, by a random change of the same length instead.
        """
        found = []
        for start in range(0, len(places), ROWS):
            duels = [duel for duel, _ in places[start : start + ROWS]]
            at = [place for _, place in places[start : start + ROWS]]
            here = self._broken[site][duels, at]
            change = self._clean[site][duels, at] - here
            if generator is not None:
                drawn = torch.randn(change.shape, generator=generator).to(change)
                length = change.norm(dim=-1, keepdim=True)
                change = torch.nn.functional.normalize(drawn, dim=-1) * length
            edits = [*self._corrupting(duels), put_at(site, at, here + change)]
            answers = self.arena.answer([self._rows[duel] for duel in duels], duels, edits)
            found.append((answers - self._low[duels]) / self.gap[duels])
        return torch.cat(found).cpu()


def trace(
    arena: Arena,
    kind: SiteKind,
    corruption: Corruption,
    seed: int,
    step: Callable[[int, int, str], None],
) -> Trace:
    """Patch every layer and token of every duel, one at a time."""
    n_layers = arena.subject.n_layers
    n_pos = max(arena.last) + 1
    places = [(duel, at) for duel in range(len(arena)) for at in range(arena.last[duel] + 1)]
    duels, positions = [duel for duel, _ in places], [at for _, at in places]
    total = torch.zeros(len(arena), n_layers, n_pos).fill_(torch.nan)
    total[duels, :, positions] = 0.0
    gaps = []
    draws = NOISE_DRAWS if corruption == "noise" else 1
    for draw in range(draws):
        corrupted = Corrupted(arena, kind, corruption, range(n_layers), seed + draw)
        gaps.append(corrupted.gap.cpu())
        for layer, site in enumerate(corrupted.sites):
            step(draw * n_layers + layer, draws * n_layers, f"tracing {kind} ({corruption})")
            total[duels, layer, positions] += corrupted.patch(site, places) / draws
    return Trace(kind, corruption, total, torch.stack(gaps).min(0).values)


def random_control(
    arena: Arena, found: Trace, layer: int, places: Sequence[tuple[int, int]], seed: int
) -> list[float]:
    """What a random change of equal length restores at one layer, at each (duel, position)."""
    corrupted = Corrupted(arena, found.kind, found.corruption, [layer], seed)
    generator = torch.Generator().manual_seed(seed)
    return [float(each) for each in corrupted.patch(corrupted.sites[0], places, generator)]


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
