"""Causal check: does a unit do to the text what its caption leads one to expect?

A caption is correlational. Here the unit is changed and the subject's next tokens are watched, at
held-out contexts that took no part in finding the caption:

- *ablation*: at its active tokens and those after, the unit is set to zero or to its mean;
- *amplification*: at random silent tokens the unit is raised to its exemplars' level.

Two targets: the tokens that the caption *names* (all of the vocabulary of which its predicate
holds), right after the peak, and the *continuation*, the tokens that really follow. An effect is by
how many nats the unit makes its target likelier.

The control is exact: other units of the layer, nearest in density and in the norm of what they
write, are moved by as much at the same tokens. So what is left to tell them apart is the direction
in which each writes. Of heads, of which a layer has few, those of the nearest layers take part too:
the direction in which they write at the token is tried in the layer that is asked about. The second
control is of named tokens: what the unit does to words that the caption does not name
(`word_sets.py`, `causal_effects.py`). The test is two-sided, since a unit may promote its target or
suppress it.
"""

import copy
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from pydantic import JsonValue
from torch import Tensor

from dragoman.core.records import JsonObject, Measurement, Site
from dragoman.tools.captioning.captioner import Captioner
from dragoman.tools.captioning.causal_effects import Effects, strengths
from dragoman.tools.captioning.levers import Lever
from dragoman.tools.captioning.parts import Part
from dragoman.tools.captioning.peers import Peers
from dragoman.tools.captioning.predicates import Predicate
from dragoman.tools.captioning.word_sets import named_tokens, unrelated_sets
from dragoman.tools.context import ToolContext
from dragoman.tools.registry import Effort
from dragoman.tools.subjects.hooks import Edit
from dragoman.tools.subjects.language import Batch
from dragoman.tools.subjects.resuming import output_shapes, resuming

Intervention: TypeAlias = Literal["mean", "zero", "amplify"]
Target: TypeAlias = Literal["named", "continuation"]

N_MATCHED: dict[Effort, int] = {"quick": 20, "full": 40}
FEWEST = 19
"""Like units, and other sets of words: with fewer no rank is as rare as one in twenty."""
_CONTEXTS: dict[Effort, int] = {"quick": 12, "full": 24}
MIN_CONTEXTS = 5
_BEFORE, _AFTER = 32, 4
"""Tokens of text before a peak, and tokens from the peak on at which units are changed."""
_ROWS = 96
"""Contexts in one forward pass, which bounds the memory of their logits."""


class Causes(NamedTuple):
    """What the check of one unit found."""

    effect: Measurement
    """Metric `causal_effect`."""
    controls: tuple[Measurement, ...]
    """The other interventions and the other target."""
    output: JsonObject


class Answers(NamedTuple):
    """Log-probabilities, in nats, while each of some units is moved."""

    continuation: Float[ndarray, "units contexts"]
    """Of the tokens that really follow: their mean."""
    sets: Float[ndarray, "sets units contexts"]
    """Of sets of tokens, right after the peak."""


class Changes(NamedTuple):
    """By how many nats units make it likelier, the unit that is asked about first."""

    continuation: Float[ndarray, "units contexts"]
    sets: Float[ndarray, "sets units contexts"]

    def on_what_follows(self) -> Effects:
        """Effects on the tokens that really follow."""
        return Effects(self.continuation[0], self.continuation[1:])

    def on_set(self, number: int, others: Sequence[int]) -> Effects:
        """Effects on one of the sets, beside those on `others`."""
        own = self.sets[number]
        return Effects(own[0], own[1:], strengths(self.sets[list(others)]))


class Spots(NamedTuple):
    """Places in texts: what stands before, and the tokens at which units are changed."""

    before: Batch
    ids: Int[Tensor, "contexts suffix"]
    """Of the tokens at which units are changed."""
    follow: Int[Tensor, "contexts suffix"]
    """Of the token after each."""


class _Move(NamedTuple):
    """Units to be moved at one place, each in its own copy of the contexts."""

    at: Site
    units: Sequence[Lever]
    change: Float[Tensor, "contexts suffix"]
    read: Mapping[Site, Float[Tensor, "contexts suffix width"]]
    """What stands where the units are read."""

    def apply(
        self, activations: Float[Tensor, "rows suffix width"]
    ) -> Float[Tensor, "rows suffix width"]:
        n_contexts = len(self.change)
        changed = activations.clone()
        for copy_, (levers, unit) in enumerate(self.units):
            own = changed[copy_ * n_contexts : (copy_ + 1) * n_contexts]
            levers.push(own, unit, self.change, self.read[levers.site])
        return changed


class CausalCheck:
    """The check for units of one layer; what it shares between them is computed once."""

    def __init__(
        self,
        context: ToolContext,
        captioner: Captioner,
        documents: Sequence[str],
        peers: Peers,
        *,
        effort: Effort,
    ) -> None:
        """`documents` are those of the captioner's table."""
        self._context, self._captioner, self._documents = context, captioner, documents
        self._subject, self._peers, self._effort = context.subject, peers, effort

    def check(self, column: int, unit: int, predicate: Predicate | None) -> Causes | None:
        """`causal_effect` and its variants for `unit`, the captioner's `column`.

        None with too few texts or like units. `causal_effect` is of ablation to the mean, on the
        tokens that the caption names or, where it names none, or leaves too few other words, on
        those that really follow.
        """
        captioner = self._captioner
        active = self._spots(column, active=True)
        silent = self._spots(column, active=False)
        matched = self._peers.matched(unit)[: N_MATCHED[self._effort]]
        if active is None or silent is None or len(matched) < FEWEST:
            return None
        sets = self._sets(predicate)
        levels = {
            "mean": float(captioner.fit.activations[:, column].mean()),
            "zero": 0.0,
            "amplify": float(np.mean([each.activation for each, _ in captioner.exemplars(column)])),
        }
        aims: list[Target] = ["continuation"] if sets is None else ["named", "continuation"]
        lever = Lever(self._peers.own, unit)
        made: dict[str, Measurement] = {}
        output: dict[str, JsonValue] = {
            "target": aims[0],
            "n_named_tokens": 0 if sets is None else int(sets[0].sum()),
            "n_matched": len(matched),
        }
        for intervention, spots in (("mean", active), ("zero", active), ("amplify", silent)):
            if intervention != "mean" and self._effort == "quick":
                break
            changed = self._changed(spots, lever, matched, levels[intervention], sets)
            for aim in aims:
                if (intervention, aim) == ("amplify", "continuation"):
                    continue  # what follows a silent token is nothing that the unit foretells
                if aim == "continuation":
                    effects = changed.on_what_follows()
                else:
                    effects = changed.on_set(0, range(1, len(changed.sets)))
                if intervention == "amplify":
                    # Raising the unit adds what ablation takes away.
                    effects = effects._replace(own=-effects.own, matched=-effects.matched)
                primary = (intervention, aim) == ("mean", aims[0])
                metric = "causal_effect" if primary else f"causal_effect_{intervention}_{aim}"
                made[metric] = effects.measurement(
                    metric,
                    f"unit {lever.name}",
                    self._context.seed,
                    like=self._peers.described("units"),
                    targets="other sets of words",
                )
                output[metric] = effects.output
        effect = made.pop("causal_effect")
        return Causes(effect, tuple(made.values()), output)

    def _sets(self, predicate: Predicate | None) -> Bool[ndarray, "sets d_vocab"] | None:
        """The tokens that are named, and other sets of words; None without enough of either."""
        named = named_tokens(self._subject, predicate)
        if named is None:
            return None
        others = unrelated_sets(self._context, named)
        return np.vstack([named, others]) if len(others) >= FEWEST else None

    def ablated(
        self, column: int, unit: int, sets: Bool[ndarray, "sets d_vocab"]
    ) -> Changes | None:
        """What setting `unit`, the captioner's `column`, to its mean does to sets of tokens.

        Effects as in `check`, of any sets; None with too few texts or like units.
        """
        matched = self._peers.matched(unit)[: N_MATCHED[self._effort]]
        active = self._spots(column, active=True)
        if active is None or len(matched) < FEWEST:
            return None
        level = float(self._captioner.fit.activations[:, column].mean())
        return self._changed(active, Lever(self._peers.own, unit), matched, level, sets)

    @torch.no_grad()
    def _changed(
        self,
        spots: Spots,
        own: Lever,
        matched: Sequence[Lever],
        level: float,
        sets: Bool[ndarray, "sets d_vocab"] | None,
    ) -> Changes:
        """Effects of setting a unit to `level`, and of moving each matched unit by as much.

        Matched units are moved where the unit is, also those of another layer: what a change does
        depends on the layer as well as on its direction.
        """
        past = self._subject.forward(spots.before, use_cache=True, logits_to_keep=1).past_key_values
        members = None if sets is None else members_of(sets, self._subject.device)
        # What the blocks below give is the same whichever unit is moved: they run once.
        at = own.levers.pushed_at
        below = self._subject.blocks[: at.layer]
        resid = Site(layer=at.layer, kind="resid_pre")
        units = [own, *matched]
        sites = dict.fromkeys((resid, *(each.levers.site for each in units)))
        with self._subject.capture(list(sites)) as taken, output_shapes(below) as shapes:
            clean = self._answers(spots, past, None, members)
        change = level - own.levers.read(taken[own.levers.site])[..., own.unit]
        moved: list[Answers] = []
        # Several units a pass: the weights are read from memory once for all of them.
        at_once = max(1, _ROWS // len(change))
        for start in range(0, len(units), at_once):
            self._context.step(start, len(units), f"checking what unit {own.name} causes")
            move = _Move(at, units[start : start + at_once], change, taken)
            with resuming(below, shapes, taken[resid].repeat(len(move.units), 1, 1)):
                moved.append(self._answers(spots, past, move, members))
        return Changes(
            clean.continuation - np.concatenate([each.continuation for each in moved]),
            clean.sets - np.concatenate([each.sets for each in moved], axis=1),
        )

    def _answers(
        self,
        spots: Spots,
        past: Any,
        move: _Move | None,
        members: Tensor | None,
    ) -> Answers:
        """One row for each unit that is moved, or a single one where none is.

        `members` is sparse, [sets d_vocab].
        """
        count, (n_contexts, suffix) = 1 if move is None else len(move.units), spots.ids.shape
        mask = torch.cat([spots.before.mask, torch.ones_like(spots.ids)], dim=1)
        steps = torch.arange(1, suffix + 1, device=spots.ids.device)
        batch = Batch(spots.ids, mask, spots.before.positions[:, -1:] + steps)
        # A forward pass writes into the cache that it is given.
        kept = copy.deepcopy(past)
        if count > 1:
            kept.reorder_cache(torch.arange(n_contexts).repeat(count).to(spots.ids.device))
        output = self._subject.forward(
            Batch(*(each.repeat(count, 1) for each in batch)),
            () if move is None else (Edit(move.at, move.apply),),
            use_cache=True,
            past_key_values=kept,
        )
        log_probs: Float[Tensor, "rows suffix d_vocab"] = output.logits.log_softmax(-1)
        follow = spots.follow.repeat(count, 1)[..., None]
        continuation = log_probs.gather(-1, follow)[..., 0].double().mean(-1)
        return Answers(
            continuation.view(count, n_contexts).cpu().numpy(),
            _log_sums(log_probs[:, 0], members).reshape(-1, count, n_contexts),
        )

    def _spots(self, column: int, *, active: bool) -> Spots | None:
        """One place a held-out document: its highest active token, or a random silent one."""
        captioner, part = self._captioner, self._captioner.held_out
        values = part.activations[:, column]
        wanted = captioner.active(part, column)
        lengths = np.bincount(part.table.document)
        usable = (part.table.index > 0) & (part.table.index + _AFTER < lengths[part.table.document])
        generator = np.random.default_rng([self._context.seed, 5, column])
        key = values if active else generator.random(part.table.n)
        rows = np.flatnonzero(usable & (wanted == active))
        best: dict[int, int] = {}
        for row in rows[np.argsort(-key[rows], kind="stable")].tolist():
            best.setdefault(int(part.table.document[row]), row)
        chosen = list(best.values())[: _CONTEXTS[self._effort]]
        if len(chosen) < MIN_CONTEXTS:
            return None
        return self._placed(part, chosen)

    def _placed(self, part: Part, rows: Sequence[int]) -> Spots:
        before, ids, follow = [], [], []
        for row in rows:
            document, index = int(part.table.document[row]), int(part.table.index[row])
            written = self._subject.token_ids(self._documents[document])
            opening = len(written) - int((part.table.document == document).sum())
            place = opening + index
            start = max(opening, place - _BEFORE)
            before.append([*written[:opening], *written[start:place]])
            ids.append(written[place : place + _AFTER])
            follow.append(written[place + 1 : place + 1 + _AFTER])
        device = self._subject.device
        return Spots(
            _left_padded(before, device),
            torch.tensor(ids, device=device),
            torch.tensor(follow, device=device),
        )


def members_of(sets: Bool[ndarray, "sets d_vocab"], device: torch.device) -> Tensor:
    """The sets as a sparse matrix: few of all pairs of a set and a token are in it."""
    return torch.from_numpy(sets).to_sparse().to(device, torch.float64)


def _log_sums(
    log_probs: Float[Tensor, "rows d_vocab"], members: Tensor | None
) -> Float[ndarray, "sets rows"]:
    """Log-probability of each set of tokens."""
    if members is None:
        return np.zeros((0, len(log_probs)))
    # The product takes a third of the time where its right side lies row by row.
    probabilities = log_probs.double().exp().T.contiguous()
    sums: ndarray = torch.sparse.mm(members, probabilities).log().cpu().numpy()
    return sums


def _left_padded(rows: Sequence[Sequence[int]], device: torch.device) -> Batch:
    longest = max(map(len, rows))
    padding = [longest - len(row) for row in rows]
    # What stands in the padding is masked.
    ids = torch.tensor(
        [[0] * pad + list(row) for pad, row in zip(padding, rows, strict=True)], device=device
    )
    start, steps = torch.tensor(padding, device=device)[:, None], torch.arange(longest)[None]
    steps = steps.to(device)
    return Batch(ids, (steps >= start).long(), (steps - start).clamp(min=0))
