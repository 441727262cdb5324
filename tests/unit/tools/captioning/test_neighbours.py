import numpy as np
import pytest

from dragoman.core.records import Site
from dragoman.tools.captioning.neighbours import correlated, scan_layer
from dragoman.tools.captioning.units import UnitLayer
from dragoman.tools.context import ToolContext

DOCUMENTS = [
    f"The capital of {name} is {n}. A dog is an animal." for n, name in enumerate("abcdefgh")
]


def test_neighbours_are_the_columns_that_rise_together():
    generator = np.random.default_rng(0)
    values = generator.normal(size=(500, 5))
    values[:, 3] = values[:, 1] + 0.1 * generator.normal(size=500)
    values[:, 4] = -values[:, 1]
    assert correlated(values, 1, 2)[0] == 3
    assert 4 not in correlated(values, 1, 4)
    assert 1 not in correlated(values, 1, 4)


def test_a_scan_gives_the_correlations_and_densities_of_the_whole_layer(tiny_subject, tmp_path):
    context = ToolContext(tiny_subject, 0, tmp_path, tmp_path, tmp_path)
    scan = scan_layer(context, DOCUMENTS, UnitLayer(layer=1), [3, 7])
    site = Site(layer=1, kind="mlp_act")
    rows = []
    for document in DOCUMENTS:
        taken = tiny_subject.activations(tiny_subject.batch([document]), [site])[site][0]
        start = 0 if tiny_subject.document_start is None else 1
        rows.append(taken[start:].detach().numpy())
    values = np.concatenate(rows)
    reference = np.corrcoef(values.T)
    assert scan.density == pytest.approx((values > 0).mean(axis=0), abs=0.01)
    assert scan.mean == pytest.approx(values.mean(axis=0), abs=1e-5)
    for row, neuron in enumerate((3, 7)):
        others = np.arange(48) != neuron
        assert scan.correlation[row][others] == pytest.approx(reference[neuron][others], abs=1e-3)
        best = reference[neuron].copy()
        best[neuron] = -1
        assert scan.nearest(2)[row] == tuple(np.argsort(-best)[:2])
