"""Masks: bilinear between cell centres, one threshold for all pictures of a unit."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from dragoman.tools.captioning.vision.masks import masks, upsampled


@pytest.mark.parametrize("grid", [(7, 7), (4, 9), (1, 1), (112, 112), (300, 300)])
@pytest.mark.parametrize("size", [224, (60, 91)])
def test_upsampling_is_the_librarys_bilinear(
    grid: tuple[int, int], size: int | tuple[int, int]
) -> None:
    maps = torch.randn(2, 3, *grid, generator=torch.Generator().manual_seed(0))
    whole = (size, size) if isinstance(size, int) else size
    expected = functional.interpolate(maps, whole, mode="bilinear", align_corners=False)
    torch.testing.assert_close(upsampled(maps, size), expected, atol=1e-4, rtol=1e-4)


def test_each_map_has_its_own_threshold_and_many_are_as_one() -> None:
    maps = torch.rand(50, 3, 7, 7, generator=torch.Generator().manual_seed(0))
    limits = torch.rand(50, 3, generator=torch.Generator().manual_seed(1))
    found = masks(maps, limits)
    assert found.shape == (50, 3, 224, 224)
    for row in (0, 17, 49):
        for column in range(3):
            alone = masks(maps[row, column], float(limits[row, column]))
            assert (alone != found[row, column]).mean() < 1e-4


def test_a_bright_cell_is_masked_where_it_lies() -> None:
    cell = torch.zeros(7, 7)
    cell[1, 5] = 1.0
    mask = masks(cell, 0.6)
    rows, columns = np.nonzero(mask)
    # Cells are 32 wide: the second row's centre is at 48, the sixth column's at 176.
    assert rows.mean() == pytest.approx(47.5, abs=0.6)
    assert columns.mean() == pytest.approx(175.5, abs=0.6)
    assert not masks(cell, 1.0).any()
    assert masks(cell, -1.0).all()
