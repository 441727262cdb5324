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
the direction in which they write at the token is tried in the layer that is asked about. The test
is two-sided, since a unit may promote its target or suppress it: the p-value is the rank of the
unit's effect among the matched units', by size.
"""

import copy
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias
from weakref import WeakKeyDictionary

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from pydantic import JsonValue
from torch import Tensor

from dragoman.core.records import JsonObject, Measurement, Site
from dragoman.tools.captioning.captioner import Captioner
from dragoman.tools.captioning.causal_effects import Effects
from dragoman.tools.captioning.levers import Lever
from dragoman.tools.captioning.parts import Part
from dragoman.tools.captioning.peers import Peers
from dragoman.tools.captioning.predicates import Predicate, holds
from dragoman.tools.captioning.tokens import TokenTable, token_table
from dragoman.tools.context import ToolContext
from dragoman.tools.registry import Effort
from dragoman.tools.subjects.hooks import Edit
from dragoman.tools.subjects.language import Batch, LanguageSubject
from dragoman.tools.subjects.resuming import output_shapes, resuming

Intervention: TypeAlias = Literal["mean", "zero", "amplify"]
Target: TypeAlias = Literal["named", "continuation"]

N_MATCHED: dict[Effort, int] = {"quick": 20, "full": 40}
_FEWEST_MATCHED = 19
"""With fewer no rank is as rare as one in twenty."""
_CONTEXTS: dict[Effort, int] = {"quick": 12, "full": 24}
MIN_CONTEXTS = 5
_BEFORE, _AFTER = 32, 4
"""Tokens of text before a peak, and tokens from the peak on at which units are changed."""
_ROWS = 96
"""Contexts in one forward pass, which bounds the memory of their logits."""
_NAMEABLE = 0.5
"""A predicate that holds of more of the vocabulary than this names nothing."""


class Causes(NamedTuple):
    """What the check of one unit found."""

    effect: Measurement
    """Metric `causal_effect`."""
    controls: tuple[Measurement, ...]
    """The other interventions and the other target."""
    output: JsonObject


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
        tokens that the caption names or, where it names none, on those that really follow.
        """
        captioner = self._captioner
        active = self._spots(column, active=True)
        silent = self._spots(column, active=False)
        matched = self._peers.matched(unit)[: N_MATCHED[self._effort]]
        if active is None or silent is None or len(matched) < _FEWEST_MATCHED:
            return None
        named = self.named(predicate)
        levels = {
            "mean": float(captioner.fit.activations[:, column].mean()),
            "zero": 0.0,
            "amplify": float(np.mean([each.activation for each, _ in captioner.exemplars(column)])),
        }
        target: Target = "continuation" if named is None else "named"
        lever, among = Lever(self._peers.own, unit), self._peers.described("units")
        scope = f"unit {lever.name}"
        made: dict[str, Measurement] = {}
        output: dict[str, JsonValue] = {
            "target": target,
            "n_named_tokens": 0 if named is None else int(named.sum()),
            "n_matched": len(matched),
        }
        for intervention, spots in (("mean", active), ("zero", active), ("amplify", silent)):
            if intervention != "mean" and self._effort == "quick":
                break
            effects = self._effects(spots, lever, matched, levels[intervention], named)
            for aim, found in effects.items():
                if intervention == "amplify":
                    if aim == "continuation":
                        continue  # what follows a silent token is nothing that the unit foretells
                    # Raising the unit adds what ablation takes away.
                    found = Effects(-found.own, -found.matched)
                primary = intervention == "mean" and aim == target
                metric = "causal_effect" if primary else f"causal_effect_{intervention}_{aim}"
                made[metric] = found.measurement(metric, scope, self._context.seed, among)
                output[metric] = {
                    "effect_nats": round(found.mean, 5),
                    "p": round(found.p_value, 4),
                }
        effect = made.pop("causal_effect")
        return Causes(effect, tuple(made.values()), output)

    def named(self, predicate: Predicate | None) -> Bool[ndarray, " d_vocab"] | None:
        """The tokens of which a predicate holds; None where it names none, or nearly all."""
        if predicate is None:
            return None
        table = vocabulary_table(self._subject)
        chosen = np.zeros(self._subject.d_vocab, dtype=bool)
        chosen[table.document[holds(predicate, table)]] = True
        # Hardly any two units are said to name the same: what each adds is not kept.
        table.columns.clear()
        return chosen if 0 < chosen.mean() < _NAMEABLE else None

    @torch.no_grad()
    def _effects(
        self,
        spots: Spots,
        own: Lever,
        matched: Sequence[Lever],
        level: float,
        named: Bool[ndarray, " d_vocab"] | None,
    ) -> dict[Target, Effects]:
        """Effects of setting a unit to `level`, and of moving each matched unit by as much.

        Matched units are moved where the unit is, also those of another layer: what a change does
        depends on the layer as well as on its direction.
        """
        past = self._subject.forward(spots.before, use_cache=True, logits_to_keep=1).past_key_values
        # What the blocks below give is the same whichever unit is moved: they run once.
        at = own.levers.pushed_at
        below = self._subject.blocks[: at.layer]
        resid = Site(layer=at.layer, kind="resid_pre")
        units = [own, *matched]
        sites = dict.fromkeys((resid, *(each.levers.site for each in units)))
        with self._subject.capture(list(sites)) as taken, output_shapes(below) as shapes:
            clean = self._scores(spots, past, None, named)
        change = level - own.levers.read(taken[own.levers.site])[..., own.unit]
        rows: dict[Target, list[Float[ndarray, "units contexts"]]] = {aim: [] for aim in clean}
        # Several units a pass: the weights are read from memory once for all of them.
        at_once = max(1, _ROWS // len(change))
        for start in range(0, len(units), at_once):
            self._context.step(start, len(units), f"checking what unit {own.name} causes")
            move = _Move(at, units[start : start + at_once], change, taken)
            with resuming(below, shapes, taken[resid].repeat(len(move.units), 1, 1)):
                moved = self._scores(spots, past, move, named)
            for aim, scores in moved.items():
                rows[aim].append(clean[aim] - scores)
        found = {aim: np.concatenate(parts) for aim, parts in rows.items()}
        return {aim: Effects(effects[0], effects[1:]) for aim, effects in found.items()}

    def _scores(
        self,
        spots: Spots,
        past: Any,
        move: _Move | None,
        named: Bool[ndarray, " d_vocab"] | None,
    ) -> dict[Target, Float[ndarray, "units contexts"]]:
        """Log-probability of each target, in nats (of the continuation: a token).

        One row for each unit that is moved, or a single one where none is.
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
        targets: dict[Target, Tensor] = {
            "continuation": log_probs.gather(-1, follow)[..., 0].double().mean(-1)
        }
        if named is not None:
            chosen = torch.from_numpy(named).to(log_probs.device)
            targets["named"] = log_probs[:, 0, chosen].double().logsumexp(-1)
        return {
            aim: values.view(count, n_contexts).cpu().numpy() for aim, values in targets.items()
        }

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


def vocabulary_table(subject: LanguageSubject) -> TokenTable:
    """Each token of the vocabulary as a text of its own; document numbers are token ids.

    Made once for a subject: it takes seconds, and a batch asks for it group by group.
    """
    table = _VOCABULARIES.get(subject)
    if table is None:
        special = set(subject.tokenizer.all_special_ids)
        texts = [
            "" if token in special else subject.token_text(token)
            for token in range(subject.d_vocab)
        ]
        table = _VOCABULARIES[subject] = token_table(texts, subject.tokenizer)
    return table


_VOCABULARIES: WeakKeyDictionary[LanguageSubject, TokenTable] = WeakKeyDictionary()


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
