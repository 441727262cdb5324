"""What a unit's captions are tried on: contexts, hard negatives, markings. Each is drawn once."""

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from dragoman.tools.captioning import contexts
from dragoman.tools.captioning.captioner import SPARSE, Captioner
from dragoman.tools.captioning.contexts import Sample
from dragoman.tools.captioning.exemplars import THRESHOLD_QUANTILE
from dragoman.tools.captioning.fuzzing import FuzzingSample, mark
from dragoman.tools.captioning.neighbours import Neighbours, correlated
from dragoman.tools.captioning.parts import Part
from dragoman.tools.captioning.tokens import Ints


class Trials:
    """Contexts for all of a captioner's units, requested ones and decoys."""

    def __init__(self, captioner: Captioner, neighbours: Neighbours | None, seed: int) -> None:
        self._captioner, self._neighbours, self._seed = captioner, neighbours, seed
        self._markings: dict[int, FuzzingSample] = {}
        self._close: dict[int, Ints] = {}
        self._own: dict[int, tuple[Sample, Sample]] = {}
        self._texts: dict[tuple[int, int], str] = {}

    def text(self, part: Part, row: int) -> str:
        """A context of one of the captioner's parts as text."""
        key = (id(part), row)
        if key not in self._texts:
            end = contexts.ends_of(part.contexts, part.table.n)[row]
            self._texts[key] = "".join(part.table.surface[part.contexts.starts[row] : end])
        return self._texts[key]

    def own(self, unit: int) -> tuple[Sample, Sample]:
        """Contexts of the captioner's own documents, fit and validation, drawn as held-out ones."""
        if unit not in self._own:
            fit, validation = (
                contexts.draw(
                    part.contexts,
                    part.table,
                    part.activations[:, unit],
                    float(self._captioner.thresholds[unit]),
                    np.zeros(part.table.n, dtype=bool),
                    seed=self._seed,
                )
                for part in (self._captioner.fit, self._captioner.validation)
            )
            self._own[unit] = fit, validation
        return self._own[unit]

    def _near(self, unit: int) -> tuple[Float[ndarray, "tokens k"], ndarray]:
        """The neighbours' activations on the held-out documents, and their thresholds."""
        captioner = self._captioner
        n_held_out = captioner.held_out.table.n
        if self._neighbours is not None and unit < captioner.n_requested:
            columns = list(self._neighbours.of[unit])
            read = self._neighbours.activations[:, columns]
            known, held_out = read[:-n_held_out], read[-n_held_out:]
            if not columns:
                return held_out, np.zeros(0)
            sparse = (known > 0).mean(axis=0) <= SPARSE
            return held_out, np.where(sparse, 0.0, np.quantile(known, THRESHOLD_QUANTILE, axis=0))
        columns = list(correlated(captioner.fit.activations, unit))
        return captioner.held_out.activations[:, columns], captioner.thresholds[columns]

    def nearby(self, unit: int) -> Ints:
        """Held-out contexts in which neighbours are active and the unit is not."""
        if unit not in self._close:
            captioner, part = self._captioner, self._captioner.held_out
            self._close[unit] = contexts.nearby(
                part.contexts,
                part.activations[:, unit],
                float(captioner.thresholds[unit]),
                *self._near(unit),
                seed=self._seed,
            )
        return self._close[unit]

    def marking(self, unit: int) -> FuzzingSample:
        """Held-out contexts with tokens marked rightly and wrongly."""
        if unit not in self._markings:
            part = self._captioner.held_out
            activations, thresholds = self._near(unit)
            self._markings[unit] = mark(
                part.contexts,
                self._captioner.active(part, unit),
                self._captioner.samples[unit],
                neighbours=np.asarray((activations > thresholds).any(axis=1)),
                nearby=self.nearby(unit),
                seed=self._seed,
            )
        return self._markings[unit]
