import numpy as np
import pytest

from dragoman.tools.captioning.contexts import Sample
from dragoman.tools.captioning.scoring import CONTROL, Detection, Score, detect, floor, scorable


def _sample(active, silent):
    return Sample(np.array(active, int), np.array(silent, int), np.array([], int))


SAID = np.array([True, True, False, False, True, False, False, False])


def test_balanced_accuracy_weighs_active_and_silent_contexts_alike():
    detection = detect(SAID, _sample([0, 1, 2], [3, 4, 5, 6, 7]))
    assert detection == Detection(hits=2, n_active=3, rejections=4, n_silent=5)
    assert detection.balanced_accuracy == pytest.approx((2 / 3 + 4 / 5) / 2)


def test_saying_yes_to_everything_is_worth_chance():
    always = np.ones(8, bool)
    assert detect(always, _sample([0, 1], [2, 3, 4])).balanced_accuracy == 0.5


def test_what_could_not_be_judged_counts_as_wrong_and_is_counted():
    detection = detect(None, _sample([0, 1], [2, 3, 4]))
    assert detection.n_failed == 5
    assert detection.balanced_accuracy == 0.0


def test_the_interval_holds_its_level_on_few_contexts():
    generator = np.random.default_rng(0)
    covered = 0
    for _ in range(2000):
        detection = Detection(
            int(generator.binomial(20, 0.6)), 20, int(generator.binomial(40, 0.9)), 40
        )
        low, high = detection.interval()
        covered += low <= 0.75 <= high
    assert 0.93 <= covered / 2000 <= 0.99


def test_the_floor_pairs_the_caption_with_other_units_and_others_captions_with_the_unit():
    mine, other = _sample([0, 1, 2, 4, 5], [3, 6, 7, 3, 6]), _sample([3] * 5, [0, 1, 2, 4, 5])
    silent_caption = np.zeros(8, bool)
    values = floor(SAID, mine, [(silent_caption, other), (None, other), (None, _sample([0], [1]))])
    # own caption on the two scorable others, the other's caption on this unit
    assert values == (
        detect(SAID, other).balanced_accuracy,
        0.5,
        detect(SAID, other).balanced_accuracy,
    )


def test_few_contexts_cannot_be_scored():
    assert not scorable(_sample([0] * 4, [1] * 50))
    assert not scorable(_sample([0] * 50, [1] * 4))
    assert scorable(_sample([0] * 5, [1] * 5))


def test_a_score_beats_its_floor_with_its_whole_interval_or_not_at_all():
    strong = Score(Detection(30, 40, 36, 40), (0.5, 0.48, 0.52))
    weak = Score(Detection(22, 40, 22, 40), (0.5, 0.48, 0.52))
    generic = Score(Detection(30, 40, 36, 40), (0.8, 0.82, 0.84))
    assert strong.beats_floor
    assert not weak.beats_floor
    assert not generic.beats_floor
    measurement = strong.measurement("unit 12.7")
    assert (measurement.metric, measurement.unit, measurement.control) == (
        "detection",
        "fraction",
        CONTROL,
    )
    assert measurement.n == 80
    assert measurement.baseline == pytest.approx(0.5)
    assert measurement.baseline_ci95 is not None
    low, high = measurement.baseline_ci95
    assert low < 0.5 < high
