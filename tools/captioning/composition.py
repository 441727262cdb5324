"""A beam search for the composition of predicates that tells where a unit is active.

After "Compositional Explanations of Neurons" (Mu & Andreas 2020, arXiv:2006.14032), who search for
the highest intersection over union. Ours maximises a description length: how much likelier the
unit's active places become, in nats, when their rate may differ between the places of which the
predicate holds and the others; less, for each atom, the nats that it takes to name one atom among
all. So a long caption has to pay for itself, and the fewer the data the shorter the captions.

Places are tokens of a text or patches of an image; the search sees columns of booleans only.
"""

from collections.abc import Callable, Iterator
from typing import Any, Generic, NamedTuple, Protocol, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
from jaxtyping import Float
from numpy import ndarray

Column: TypeAlias = npt.NDArray[np.bool_]
"""One truth value for each place."""
Truth: TypeAlias = npt.NDArray[np.float32]
"""1 at the places where the unit is active, else 0."""
SHORTLIST = 100
_BEAM = 8
_EXTENSIONS = 6
"""Compositions that each member of the beam may contribute in a round."""
_MAX_ATOMS = 6


class _Dumpable(Protocol):
    def model_dump_json(self) -> str: ...


P = TypeVar("P", bound=_Dumpable)


class Proposal(NamedTuple, Generic[P]):
    """A predicate, and the nats by which it shortens the description of the fit's places."""

    predicate: P
    gain: float


class Atoms(NamedTuple, Generic[P]):
    """Atoms with their columns as numbers, so that whole rounds are matrix products."""

    predicates: list[P]
    columns: Float[ndarray, "atoms places"]


class Algebra(NamedTuple, Generic[P]):
    """How two predicates are put together; `without` is "the first and not the second"."""

    both: Callable[[P, P], P]
    either: Callable[[P, P], P]
    without: Callable[[P, P], P] | None = None


class _Scored(NamedTuple, Generic[P]):
    predicate: P
    column: Column
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
    truth = active.astype(np.float32)
    short, known = _shortlist(atoms, truth, price)
    beam = _best(known, _BEAM)
    for _ in range(_MAX_ATOMS - 1):
        before = len(known)
        for old in beam:
            for new in _extended(old, short, truth, algebra, price):
                known.setdefault(new.predicate.model_dump_json(), new)
        if len(known) == before:
            break
        beam = _best(known, _BEAM)
    return [Proposal(each.predicate, each.gain) for each in _best(known, limit)]


def information(
    n_said: Float[ndarray, "*shape"], n_hits: Float[ndarray, "*shape"], truth: Truth
) -> Float[ndarray, "*shape"]:
    """Gain in log-likelihood, in nats, of two rates of activity over one for all places.

    `n_said` places satisfy the predicate, `n_hits` of them are active. A predicate that marks the
    silent places says nothing about where the unit is active: its gain is 0.
    """
    n, n_active = float(len(truth)), float(truth.sum())
    gain = (
        _entropy_sum(n_hits, n_said)
        + _entropy_sum(n_active - n_hits, n - n_said)
        - _entropy_sum(np.array(n_active), np.array(n))
    )
    informative = n_hits * n > n_said * n_active
    return np.where(informative, gain, 0.0)


def _entropy_sum(k: Float[ndarray, "*shape"], n: Float[ndarray, "*shape"]) -> Any:
    """Log-likelihood of k successes in n at their own rate."""
    k, n = np.asarray(k, np.float64), np.asarray(n, np.float64)
    total = n * np.log(np.maximum(n, 1))
    return k * np.log(np.maximum(k, 1)) + (n - k) * np.log(np.maximum(n - k, 1)) - total


def _shortlist(
    atoms: Atoms[P], truth: Truth, price: float
) -> tuple[Atoms[P], dict[str, _Scored[P]]]:
    predicates, columns = atoms
    gains = information(columns.sum(axis=1), columns @ truth, truth) - price
    order = sorted(range(len(predicates)), key=lambda row: (-round(float(gains[row]), 6), row))
    rows = order[:SHORTLIST]
    known = {
        predicates[row].model_dump_json(): _Scored(
            predicates[row], columns[row] > 0, 1, float(gains[row])
        )
        for row in rows
    }
    return Atoms([predicates[row] for row in rows], columns[rows]), known


def _extended(
    old: _Scored[P], atoms: Atoms[P], truth: Truth, algebra: Algebra[P], price: float
) -> Iterator[_Scored[P]]:
    """The best compositions of `old` with one more atom, as far as they gain anything."""
    n_atoms = old.n_atoms + 1
    column = old.column.astype(np.float32)
    n_old, hits_old = column.sum(), column @ truth
    n_both, hits_both = atoms.columns @ column, atoms.columns @ (column * truth)
    rounds = [
        (algebra.both, n_both, hits_both),
        (
            algebra.either,
            atoms.columns.sum(axis=1) + n_old - n_both,
            atoms.columns @ truth + hits_old - hits_both,
        ),
    ]
    if algebra.without is not None:
        rounds.append((algebra.without, n_old - n_both, hits_old - hits_both))
    for compose, n_said, n_hits in rounds:
        gains = information(n_said, n_hits, truth) - price * n_atoms
        for row in np.argsort(-gains, kind="stable")[:_EXTENSIONS].tolist():
            if gains[row] > old.gain + 1e-6:
                other = atoms.columns[row] > 0
                if compose is algebra.both:
                    joined = old.column & other
                elif compose is algebra.either:
                    joined = old.column | other
                else:
                    joined = old.column & ~other
                yield _Scored(
                    compose(old.predicate, atoms.predicates[row]),
                    joined,
                    n_atoms,
                    float(gains[row]),
                )


def _best(known: dict[str, _Scored[P]], limit: int) -> list[_Scored[P]]:
    """Best first; among equals the shorter, then the alphabet, so that nothing hangs on luck."""
    ordered = sorted(
        known.items(), key=lambda item: (-round(item[1].gain, 6), item[1].n_atoms, item[0])
    )
    return [scored for _, scored in ordered[:limit]]
