"""A beam search for the composition of predicates that tells where a unit is active.

After "Compositional Explanations of Neurons" (Mu & Andreas 2020, arXiv:2006.14032), who search for
the highest intersection over union. Ours maximises a description length: how much likelier the
unit's active places become, in nats, when their rate may differ between the places of which the
predicate holds and the others; less, for each atom, the nats that it takes to name one atom among
all. So a long caption has to pay for itself, and the fewer the data the shorter the captions.

Places are tokens of a text or patches of an image; the search sees columns of booleans only. They
are held bit by bit, 64 places a machine word, so that what two columns share is counted by the
processor's own count of bits.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any, Generic, NamedTuple, Protocol, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
from jaxtyping import Float, UInt64
from numpy import ndarray

Column: TypeAlias = npt.NDArray[np.bool_]
"""One truth value for each place."""
_BEAM = 8
_ADMITTED = 16
"""Compositions that may be added to those known in a round."""
_MAX_ATOMS = 6
_SHORTLIST = 128
"""Atoms that go on being tried after all were tried with each of the first beam."""


class _Dumpable(Protocol):
    def model_dump_json(self) -> str: ...


P = TypeVar("P", bound=_Dumpable)


def joined(kind: type[Any], first: P, second: P) -> tuple[P, ...]:
    """The parts of both in one flat composition of `kind`: each once and in a fixed order, so that
    equal compositions are equal records.
    """
    parts: dict[str, P] = {}
    for each in (first, second):
        inner: Sequence[P] = each.of if isinstance(each, kind) else (each,)
        parts |= {part.model_dump_json(): part for part in inner}
    return tuple(parts[key] for key in sorted(parts))


class Proposal(NamedTuple, Generic[P]):
    """A predicate, and the nats by which it shortens the description of the fit's places."""

    predicate: P
    gain: float


class Atoms(Generic[P]):
    """Atoms with their columns: any array [atoms places] that is nonzero where the atom holds."""

    def __init__(self, predicates: Sequence[P], columns: npt.NDArray[Any]) -> None:
        self.predicates = list(predicates)
        self.bits: UInt64[ndarray, "atoms words"] = _packed(np.asarray(columns, dtype=bool))
        self.counts: npt.NDArray[np.int64] = _count(self.bits)

    def rows(self, chosen: npt.NDArray[np.intp]) -> "Atoms[P]":
        """Some of the atoms."""
        return self._with(
            [self.predicates[row] for row in chosen.tolist()],
            self.bits[chosen],
            self.counts[chosen],
        )

    def and_also(self, other: "Atoms[P]") -> "Atoms[P]":
        """These atoms and the others."""
        return self._with(
            self.predicates + other.predicates,
            np.concatenate([self.bits, other.bits]),
            np.concatenate([self.counts, other.counts]),
        )

    def _with(
        self,
        predicates: list[P],
        bits: UInt64[ndarray, "atoms words"],
        counts: npt.NDArray[np.int64],
    ) -> "Atoms[P]":
        atoms: Atoms[P] = Atoms.__new__(Atoms)
        atoms.predicates, atoms.bits, atoms.counts = predicates, bits, counts
        return atoms


class Algebra(NamedTuple, Generic[P]):
    """How two predicates are put together; `without` is "the first and not the second"."""

    both: Callable[[P, P], P]
    either: Callable[[P, P], P]
    without: Callable[[P, P], P] | None = None


class _Scored(NamedTuple, Generic[P]):
    predicate: P
    bits: UInt64[ndarray, " words"]
    n_atoms: int
    gain: float


def search(
    atoms: Atoms[P], active: Column, algebra: Algebra[P], *, price: float, limit: int
) -> list[Proposal[P]]:
    """The best predicates for where `active` holds, best first; none where it never does.

    `price`: nats for each atom of a predicate.
    """
    if not active.any() or not atoms.predicates:
        return []
    rounds = _Rounds(atoms, active, algebra, price)
    known = rounds.single(limit=4 * _BEAM)
    seen = {each.bits.tobytes() for each in known.values()}
    for _ in range(_MAX_ATOMS - 1):
        before = len(known)
        for new in rounds.extended(_best(known, _BEAM)):
            # The same places in more words would fill the beam with one idea.
            if new.bits.tobytes() not in seen:
                known[new.predicate.model_dump_json()] = new
                seen.add(new.bits.tobytes())
        if len(known) == before:
            break
    return [Proposal(each.predicate, each.gain) for each in _best(known, limit)]


class _Rounds(Generic[P]):
    """One unit's search: what every atom counts among all places and among the active ones."""

    def __init__(self, atoms: Atoms[P], active: Column, algebra: Algebra[P], price: float) -> None:
        self._atoms, self._price, self._algebra = atoms, price, algebra
        self._n, self._places = len(active), np.flatnonzero(active)
        self._at_active = self._active_bits(atoms.bits)
        self._hits = _count(self._at_active)

    def single(self, limit: int) -> dict[str, _Scored[P]]:
        """The atoms by themselves, the best of them."""
        gains = self._gain(self._atoms.counts, self._hits) - self._price
        order = np.lexsort((np.arange(len(gains)), -gains.round(6)))[:limit]
        predicates, bits = self._atoms.predicates, self._atoms.bits
        return {
            predicates[row].model_dump_json(): _Scored(
                predicates[row], bits[row], 1, float(gains[row])
            )
            for row in order.tolist()
        }

    def extended(self, beam: Sequence[_Scored[P]]) -> Iterator[_Scored[P]]:
        """The best compositions of one of `beam` and an atom that gain on what they extend."""
        gains, tried = self._compositions(beam), self._atoms
        if len(tried.predicates) > _SHORTLIST:
            self._keep(np.argsort(-gains.max(axis=(0, 1)), kind="stable")[:_SHORTLIST])
        for flat in np.argsort(-gains, axis=None, kind="stable")[:_ADMITTED].tolist():
            operation, which, row = (int(i) for i in np.unravel_index(flat, gains.shape))
            gain, old, other = float(gains.flat[flat]), beam[which], tried.bits[row]
            if gain == -np.inf:
                return
            compose, bits = (
                (self._algebra.both, old.bits & other),
                (self._algebra.either, old.bits | other),
                (self._algebra.without, old.bits & ~other),
            )[operation]
            # Compositions that the algebra lacks gain minus infinity.
            assert compose is not None
            yield _Scored(
                compose(old.predicate, tried.predicates[row]), bits, old.n_atoms + 1, gain
            )

    def _compositions(self, beam: Sequence[_Scored[P]]) -> Float[ndarray, "operations beam atoms"]:
        """Gains of each of the beam with each atom; minus infinity where that gains nothing."""
        atoms, bits = self._atoms, np.stack([old.bits for old in beam])
        at_active = self._active_bits(bits)
        n_old, hits_old = _count(bits)[:, None], _count(at_active)[:, None]
        n_both = _count(atoms.bits[None] & bits[:, None])
        hits_both = _count(self._at_active[None] & at_active[:, None])
        gains = np.stack(
            [
                self._gain(n_both, hits_both),
                self._gain(atoms.counts + n_old - n_both, self._hits + hits_old - hits_both),
                self._gain(n_old - n_both, hits_old - hits_both),
            ]
        )
        gains -= self._price * np.array([old.n_atoms + 1 for old in beam])[:, None]
        gains[gains <= np.array([old.gain + 1e-6 for old in beam])[:, None]] = -np.inf
        if self._algebra.without is None:
            gains[2] = -np.inf
        return gains

    def _keep(self, chosen: npt.NDArray[np.intp]) -> None:
        self._atoms = self._atoms.rows(chosen)
        self._at_active, self._hits = self._at_active[chosen], self._hits[chosen]

    def _active_bits(self, bits: UInt64[ndarray, "rows words"]) -> UInt64[ndarray, "rows few"]:
        """The same truth values at the active places only."""
        bytes_ = bits.view(np.uint8)[:, self._places >> 3]
        return _packed((bytes_ >> (7 - (self._places & 7)).astype(np.uint8)) & 1)

    def _gain(
        self, n_said: npt.NDArray[np.int64], n_hits: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.float64]:
        return information(n_said, n_hits, n=self._n, n_active=len(self._places))


def information(
    n_said: npt.NDArray[np.int64], n_hits: npt.NDArray[np.int64], *, n: int, n_active: int
) -> npt.NDArray[np.float64]:
    """Gain in log-likelihood, in nats, of two rates of activity over one for all `n` places.

    `n_said` places satisfy the predicate, `n_hits` of them are among the `n_active`. A predicate
    that marks the silent places says nothing about where the unit is active: its gain is 0.
    """
    table = _k_log_k(n)

    def log_likelihood(k: Any, of: Any) -> Any:
        """Of k successes in so many at their own rate."""
        return table[k] + table[of - k] - table[of]

    gain = log_likelihood(n_hits, n_said) + log_likelihood(n_active - n_hits, n - n_said)
    informative = n_hits * n > n_said * n_active
    return np.where(informative, gain - log_likelihood(n_active, n), 0.0)


@lru_cache(maxsize=8)
def _k_log_k(n: int) -> npt.NDArray[np.float64]:
    """K log k for k from 0 to n."""
    counts = np.arange(n + 1, dtype=np.float64)
    return np.asarray(counts * np.log(np.maximum(counts, 1)))


def _packed(columns: npt.NDArray[Any]) -> UInt64[ndarray, "rows words"]:
    """Rows of truth values as rows of 64-bit words, padded with zeros."""
    n_bytes = -(-columns.shape[1] // 64) * 8
    padded = np.zeros((len(columns), n_bytes), np.uint8)
    bytes_ = np.packbits(columns, axis=1)
    padded[:, : bytes_.shape[1]] = bytes_
    return padded.view(np.uint64)


def _count(bits: UInt64[ndarray, "*rows words"]) -> npt.NDArray[np.int64]:
    return np.asarray(np.bitwise_count(bits).sum(axis=-1, dtype=np.int64))


def _best(known: dict[str, _Scored[P]], limit: int) -> list[_Scored[P]]:
    """Best first; among equals the shorter, then the alphabet, so that nothing hangs on luck."""
    ordered = sorted(
        known.items(), key=lambda item: (-round(item[1].gain, 6), item[1].n_atoms, item[0])
    )
    return [scored for _, scored in ordered[:limit]]
