"""Streaming statistics of one layer's units over pictures, the maps of the best ones included.

Merging the tallies of two sets of pictures gives, to the bit, that of one pass over both.
"""

from collections.abc import Mapping

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from dragoman.core.errors import ToolError
from dragoman.tools.captioning.exemplars import THRESHOLD_QUANTILE, TOP_CONTEXTS, QuantileSketch

_NONE = -1
"""In place of a picture's number where fewer pictures than places were seen."""


class LayerTally:
    """For each unit: its best pictures with their maps, quantile sketch, density and range."""

    def __init__(self, n_units: int, grid: tuple[int, int], k: int = TOP_CONTEXTS) -> None:
        self._k = k
        # Counts of positions outgrow 32 bits at some hundred thousand pictures.
        self.sketch = QuantileSketch(
            n_units, torch.zeros(n_units, QuantileSketch.N_BUCKETS, dtype=torch.int64)
        )
        self.n_positions = torch.zeros(1, dtype=torch.int64)
        self.n_above_zero = torch.zeros(n_units, dtype=torch.int64)
        self.highest = torch.full((n_units,), -torch.inf)
        self.lowest = torch.full((n_units,), torch.inf)
        self._images = torch.full((n_units, k), _NONE, dtype=torch.int64)
        self._peaks = torch.full((n_units, k), -torch.inf)
        # Places of `_maps` are never moved: an entry that leaves gives its place to one that comes.
        self._place = torch.arange(k).repeat(n_units, 1)
        self._maps = torch.zeros(n_units, k, *grid)

    def see(self, images: Int64[Tensor, " batch"], maps: Float[Tensor, "batch units h w"]) -> None:
        """Take in pictures that were not seen before; `ToolError` for maps that are not finite."""
        # Channels lie innermost in memory as convolutions leave them; then this copies nothing.
        values = maps.permute(0, 2, 3, 1).flatten(1, 2).float()
        peaks, lowest = values.amax(1), values.amin(1).amin(0)
        if not (peaks.isfinite().all() and lowest.isfinite().all()):
            row = int((~peaks.isfinite()).any(1).int().argmax())
            raise ToolError(f"the subject's activations are not finite in picture {images[row]}")
        torch.maximum(self.highest, peaks.amax(0), out=self.highest)
        torch.minimum(self.lowest, lowest, out=self.lowest)
        self.n_positions += values.shape[0] * values.shape[1]
        self.n_above_zero += (values > 0).sum((0, 1))
        self.sketch.update(values.flatten(0, 1))
        self._compare(images, peaks, maps)

    def _compare(
        self,
        images: Int64[Tensor, " batch"],
        peaks: Float[Tensor, "batch units"],
        maps: Float[Tensor, "batch units h w"],
    ) -> None:
        # In a long run most pictures are among the best of hardly any unit.
        units = (peaks >= self._peaks[:, -1]).any(0).nonzero()[:, 0]
        if len(units) == 0:
            return
        numbers = images[None].expand(len(units), -1)
        best = _best(
            torch.cat([self._peaks[units], peaks.T[units]], 1),
            torch.cat([self._images[units], numbers], 1),
            self._k,
        )
        old = best < self._k
        place = self._place[units]
        stays = torch.zeros(len(units), self._k + 1, dtype=torch.bool)
        stays = stays.scatter_(1, best.where(old, self._k), True)[:, : self._k]
        place_of_best = place.gather(1, best.where(old, 0))
        # Row by row as many leave as come: the first that comes takes the first free place.
        place_of_best[~old] = place[~stays]
        row, rank = (~old).nonzero(as_tuple=True)
        where = place_of_best[row, rank]
        self._maps[units[row], where] = maps[best[row, rank] - self._k, units[row]].float()
        self._peaks[units] = torch.cat([self._peaks[units], peaks.T[units]], 1).gather(1, best)
        self._images[units] = torch.cat([self._images[units], numbers], 1).gather(1, best)
        self._place[units] = place_of_best

    def tensors(self) -> dict[str, Tensor]:
        """All of it, in an order that does not tell in which order pictures came."""
        grid = self._maps.shape[2:]
        order = self._place[:, :, None, None].expand(-1, -1, *grid)
        empty = (self._images == _NONE)[:, :, None, None]
        return {
            "images": self._images,
            "activations": self._peaks,
            "maps": self._maps.gather(1, order).masked_fill_(empty, 0),
            "counts": self.sketch.counts,
            "n_positions": self.n_positions,
            "n_above_zero": self.n_above_zero,
            "highest": self.highest,
            "lowest": self.lowest,
            "thresholds": self._thresholds(),
        }

    def _thresholds(self) -> Float[Tensor, " units"]:
        """The 0.99 quantiles, and never above what the unit reaches.

        A unit that is clipped (ReLU6) may be at its limit in more than one place of a hundred.
        """
        quantile = torch.from_numpy(self.sketch.quantile(THRESHOLD_QUANTILE)).float()
        return quantile.minimum(self.highest.clamp(min=0) * (1 - QuantileSketch.RELATIVE_ERROR))

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Become what `tensors` was taken of."""
        self._images, self._peaks = tensors["images"].clone(), tensors["activations"].clone()
        self._maps = tensors["maps"].clone()
        self._place = torch.arange(self._k).repeat(len(self._images), 1)
        self.sketch = QuantileSketch(len(self._images), tensors["counts"].clone())
        self.n_positions = tensors["n_positions"].clone()
        self.n_above_zero = tensors["n_above_zero"].clone()
        self.highest, self.lowest = tensors["highest"].clone(), tensors["lowest"].clone()

    def merge(self, other: Mapping[str, Tensor]) -> None:
        """Take in the tensors of a tally of the same units over other pictures."""
        self.sketch.counts += other["counts"]
        self.n_positions += other["n_positions"]
        self.n_above_zero += other["n_above_zero"]
        torch.maximum(self.highest, other["highest"], out=self.highest)
        torch.minimum(self.lowest, other["lowest"], out=self.lowest)
        own = self.tensors()
        peaks = torch.cat([own["activations"], other["activations"]], 1)
        images = torch.cat([own["images"], other["images"]], 1)
        best = _best(peaks, images, self._k)
        self._peaks, self._images = peaks.gather(1, best), images.gather(1, best)
        rows = torch.arange(len(best))[:, None]
        self._maps = torch.cat([own["maps"], other["maps"]], 1)[rows, best]
        self._place = torch.arange(self._k).repeat(len(best), 1)


def _best(
    peaks: Float[Tensor, "units n"], images: Int64[Tensor, "units n"], k: int
) -> Int64[Tensor, "units k"]:
    """Indices of the `k` highest, equal ones by the picture's number; places without one last."""
    by_image = images.where(images != _NONE, torch.iinfo(torch.int64).max).argsort(
        stable=True, dim=1
    )
    by_peak = peaks.gather(1, by_image).argsort(stable=True, dim=1, descending=True)
    return by_image.gather(1, by_peak)[:, :k]
