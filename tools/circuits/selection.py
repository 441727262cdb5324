"""Layer, beta and rank, chosen on validation facts that are never reported.

Facts are few, so the share that a setting names is a coarse guess of what it would name among
others: one fact more or less outweighs everything else. The mean probability that it gives to the
objects' first tokens lies on the same scale and moves with every fact, however near or far it is.
The choice goes by the sum of the two.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor

from dragoman.tools.circuits.approximation import AffineMap, invert
from dragoman.tools.circuits.causality import Bench, Pairs, random_like
from dragoman.tools.circuits.faithfulness import hits, shuffled_hits
from dragoman.tools.circuits.scaled_readout import decode_scaled
from dragoman.tools.relations import Sample
from dragoman.tools.subjects.language import LanguageSubject

BETAS = (0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.5, 8.0, 10.0)


class Setting(NamedTuple):
    """The best setting at one layer, as it did on the validation facts."""

    layer: int
    value: float
    """beta for reading, rank for editing."""
    share: float
    """Of facts named, or of edits that succeeded."""
    control_share: float
    """The same under the control: the shuffled relation, or random directions of equal norm."""
    log_prob: float
    """Mean, of the first token of the object wanted, in nats."""
    probability: float = 0.0
    """Mean, of that token."""
    damped: bool = False
    """For editing: whether the inverse fades out around the rank or is cut there, as published."""

    @property
    def merit(self) -> tuple[float, float]:
        """What the choice goes by; equals are told apart by the log-probability."""
        return merit_of(self.share, self.probability, self.log_prob)


def merit_of(share: float, probability: float, log_prob: float) -> tuple[float, float]:
    """What every choice goes by, the rivals' as the map's own."""
    return share + probability, log_prob


def sweep_reading(
    subject: LanguageSubject,
    maps: Mapping[int, AffineMap],
    entity: Float[Tensor, "layer batch d_model"],
    samples: Sequence[Sample],
    first: Tensor,
    step: Callable[[int], None],
) -> list[Setting]:
    """The best beta of each layer, for naming the objects of `samples` from their h."""
    found = []
    objects = [sample.object for sample in samples]
    count = len(samples)
    for layer, relation_map in maps.items():
        linear = relation_map.linear(entity[layer])
        tried = []
        answers = decode_scaled(subject, linear, relation_map.bias, BETAS, first)
        for beta, decoded in zip(BETAS, answers, strict=True):
            share = sum(hits(decoded.texts, samples)) / count
            control = shuffled_hits(decoded.texts, objects) / count
            tried.append(Setting(layer, beta, share, control, *_means(decoded.log_probs)))
        found.append(max(tried, key=lambda setting: setting.merit))
        step(layer)
    return found


def sweep_editing(
    bench: Bench,
    maps: Mapping[int, AffineMap],
    pairs: Pairs,
    ranks: Sequence[int],
    seed: int,
    step: Callable[[int], None],
) -> list[Setting]:
    """The best rank of each layer for edits through its map's inverse: cut, then damped."""
    found = []
    count = len(pairs.sources)
    changes = bench.changes(pairs)
    fading = damped_ranks(ranks)
    for layer, relation_map in maps.items():
        inverse = invert(relation_map, max(ranks))
        for damped, form, asked in (
            (False, inverse.shifts, ranks),
            (True, inverse.damped, fading),
        ):
            shifts = form(changes, asked)
            repeated = Pairs(pairs.sources * len(asked), pairs.targets * len(asked))
            edited = bench.edit(repeated, layer, shifts.flatten(0, 1))
            tried = []
            for place, rank in enumerate(asked):
                rows = slice(place * count, (place + 1) * count)
                share = sum(edited.succeeded[rows]) / count
                means = _means(edited.decoded.log_probs[rows])
                tried.append((Setting(layer, rank, share, 0.0, *means, damped), shifts[place]))
            best, shift = max(tried, key=lambda pair: pair[0].merit)
            control = bench.edit(pairs, layer, random_like(shift, seed))
            found.append(best._replace(control_share=control.share))
        step(layer)
    return found


def best_swap(
    bench: Bench,
    layers: Sequence[int],
    pairs: Pairs,
    swap: Callable[[Pairs, int], Tensor],
) -> Setting:
    """The layer at which putting something else in h's place does best, without any map."""
    tried = []
    for layer in layers:
        edited = bench.edit(pairs, layer, swap(pairs, layer))
        means = _means(edited.decoded.log_probs)
        tried.append(Setting(layer, 0.0, edited.share, 0.0, *means))
    return choose(tried)


def _means(log_probs: Float[Tensor, " fact"]) -> tuple[float, float]:
    return float(log_probs.mean()), float(log_probs.exp().mean())


def best_by_layer(settings: Sequence[Setting]) -> list[Setting]:
    """The setting that did best at each layer, by layer: one inverse of the two that were tried."""
    best: dict[int, Setting] = {}
    for setting in settings:
        if setting.layer not in best or setting.merit > best[setting.layer].merit:
            best[setting.layer] = setting
    return [best[layer] for layer in sorted(best)]


def choose(settings: Sequence[Setting]) -> Setting:
    """The setting that did best; the lower layer where two are equal."""
    return max(settings, key=lambda setting: (*setting.merit, -setting.layer))


def damped_ranks(ranks: Sequence[int]) -> Sequence[int]:
    """Which of `ranks` a damped inverse is tried at: it depends on the rank less than a cut."""
    return ranks[len(ranks) // 4 : -1] or ranks
