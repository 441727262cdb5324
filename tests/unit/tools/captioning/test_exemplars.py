import numpy as np
import pytest
import torch

from dragoman.tools.captioning.exemplars import (
    QuantileSketch,
    UnitSummaries,
)


def _documents(n, n_units, seed=0):
    generator = np.random.default_rng(seed)
    return [
        generator.normal(size=(generator.integers(3, 12), n_units)).astype(np.float32)
        for _ in range(n)
    ]


def _summarised(documents, numbers, n_units):
    summaries = UnitSummaries(n_units)
    for number in numbers:
        summaries.update(number, documents[number])
    return summaries


def test_streaming_top_contexts_equal_a_full_sort():
    documents = _documents(60, 4)
    summaries = _summarised(documents, range(60), 4)
    for unit in range(4):
        peaks = sorted(
            ((float(each[:, unit].max()), n) for n, each in enumerate(documents)),
            key=lambda pair: (-pair[0], pair[1]),
        )
        found = summaries.exemplars(unit)
        assert [(each.activation, each.document) for each in found] == peaks[:15]
        for each in found:
            assert documents[each.document][each.position, unit] == each.activation


def test_order_of_arrival_and_equal_peaks_make_no_difference():
    documents = _documents(30, 3)
    for number in (3, 11, 25):
        documents[number][0] = 9.0
    forward = _summarised(documents, range(30), 3)
    backward = _summarised(documents, reversed(range(30)), 3)
    assert forward.exemplars(1) == backward.exemplars(1)
    assert [each.document for each in forward.exemplars(1)[:3]] == [3, 11, 25]


def test_two_shards_merged_equal_one_run_to_the_bit():
    documents = _documents(50, 5)
    whole = _summarised(documents, range(50), 5)
    merged = _summarised(documents, range(20, 50), 5)
    merged.merge(_summarised(documents, range(20), 5))
    assert np.array_equal(whole.sketch.counts, merged.sketch.counts)
    assert whole.thresholds().tobytes() == merged.thresholds().tobytes()
    assert whole.density().tobytes() == merged.density().tobytes()
    assert all(whole.exemplars(unit) == merged.exemplars(unit) for unit in range(5))


@pytest.mark.parametrize("scale", [1e-4, 1.0, 3000.0])
@pytest.mark.parametrize("share", [0.5, 0.9, 0.99])
def test_quantile_error_is_within_its_bound(scale, share):
    values = (np.random.default_rng(3).lognormal(size=(5000, 3)) * scale).astype(np.float32)
    sketch = QuantileSketch(3)
    for start in range(0, 5000, 700):
        sketch.update(torch.from_numpy(values[start : start + 700]))
    exact = np.quantile(values, share, axis=0, method="inverted_cdf")
    error = np.abs(sketch.quantile(share) - exact) / exact
    assert error.max() <= QuantileSketch.RELATIVE_ERROR


def test_negative_values_share_the_bucket_of_zero():
    sketch = QuantileSketch(1)
    sketch.update(torch.tensor([[-5.0], [-0.1], [0.0], [8.0]]))
    assert sketch.quantile(0.75) == [0.0]
    assert sketch.quantile(1.0) == pytest.approx([8.0], rel=QuantileSketch.RELATIVE_ERROR)


def test_units_never_above_zero_or_constant_are_dead():
    activations = np.array([[-1.0, 2.0, 0.0, 0.5], [-3.0, 2.0, 0.0, -0.5]], np.float32)
    summaries = UnitSummaries(4)
    summaries.update(0, activations)
    assert summaries.dead().tolist() == [True, True, True, False]
