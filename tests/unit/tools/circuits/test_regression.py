"""Ridge regression against its own definition."""

import pytest
import torch

from dragoman.tools.circuits.regression import RIDGES, regress


def _facts(count, d_model=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    entity = torch.randn(count, d_model, generator=generator)
    weight = torch.randn(d_model, d_model, generator=generator)
    return entity, entity @ weight.T + 3.0, weight


def test_enough_facts_give_the_map_and_its_offset():
    entity, final, weight = _facts(60)
    fit = regress(entity, final)[0]
    unseen = torch.randn(4, 6, generator=torch.Generator().manual_seed(9))
    torch.testing.assert_close(fit(unseen), unseen @ weight.T + 3.0, atol=0.05, rtol=0.05)


@pytest.mark.parametrize("count", [3, 5, 20])
def test_left_out_predictions_are_those_of_fits_without_the_fact(count):
    entity, final, _ = _facts(count)
    unit = (entity - entity.mean(0)).square().sum(1).mean()
    for ridge, fit in zip(RIDGES[1:], regress(entity, final)[1:], strict=True):
        for fact in range(count):
            kept = [place for place in range(count) if place != fact]
            # The same penalty, the fact gone: solved in the primal form with an intercept.
            design = torch.cat([entity[kept], torch.ones(count - 1, 1)], dim=1)
            penalty = torch.diag(torch.tensor([float(ridge * unit)] * 6 + [0.0]))
            solved = torch.linalg.solve(design.T @ design + penalty, design.T @ final[kept])
            expected = torch.cat([entity[fact], torch.ones(1)]) @ solved
            torch.testing.assert_close(fit.left_out[fact], expected, atol=2e-3, rtol=2e-3)


def test_one_fact_is_too_few():
    with pytest.raises(ValueError, match="two facts"):
        regress(torch.ones(1, 4), torch.ones(1, 4))
