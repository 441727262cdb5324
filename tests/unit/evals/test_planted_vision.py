"""The eval of planted vision units: what counts as recovered, and what as false."""

import numpy as np
import pytest

from dragoman.evals.planted_vision_table import Outcome, Trial, render
from dragoman.evals.planted_vision_truth import balanced_accuracy, rival, truth
from dragoman.tools.subjects.planted_scenes import OutlineName, SceneObject

RED_CIRCLE = ((("red", True), ("circle", True)),)
RED_NO_CIRCLE = ((("red", True), ("circle", False)),)


def thing(outline: OutlineName, colour: str) -> SceneObject:
    return SceneObject(outline, colour, None, (0.0, 0.0))


SCENES = [
    [thing("circle", "red"), thing("square", "blue")],
    [thing("circle", "blue"), thing("square", "red")],
    [thing("circle", "blue"), thing("square", "blue")],
]


def test_a_rule_holds_of_one_object_and_rivals_show_its_parts_on_several() -> None:
    assert truth(SCENES, RED_CIRCLE).tolist() == [True, False, False]
    assert rival(SCENES, RED_CIRCLE).tolist() == [False, True, False]
    assert truth(SCENES, RED_NO_CIRCLE).tolist() == [False, True, False]
    assert rival(SCENES, RED_NO_CIRCLE).tolist() == [True, False, False]


def test_of_a_plain_rule_every_other_scene_is_a_rival() -> None:
    rule = ((("red", True),),)
    assert (rival(SCENES, rule) == ~truth(SCENES, rule)).all()


def test_accuracy_is_balanced_and_needs_enough_of_both() -> None:
    holds = np.arange(20) < 5
    assert balanced_accuracy(np.ones(20, bool), holds) == 0.5
    assert balanced_accuracy(holds, holds) == 1.0
    assert balanced_accuracy(holds, holds, np.arange(20) < 9) is None
    assert balanced_accuracy(np.arange(20) < 10, holds, np.arange(20) < 10) == pytest.approx(0.5)


def outcome(name: str, *, composed: bool, recovered: bool) -> Outcome:
    return Outcome(
        name=name,
        composed=composed,
        caption="red circles",
        claimed=True,
        accuracy=0.95,
        apart=None,
        detection=0.9,
        floor=0.5,
        fuzzing=0.8,
        simulation=0.5,
        recovered=recovered,
        n_senses=1,
    )


def trial(recovered: bool = True, random: tuple[str, ...] = ("",) * 64) -> Trial:
    outcomes = (
        outcome("red", composed=False, recovered=recovered),
        outcome("red|circles", composed=True, recovered=True),
    )
    return Trial(
        seed=0,
        with_pmi=outcomes,
        without_pmi=outcomes,
        shuffled=("",) * 64,
        nameless=("",) * 64,
        random=random,
        n_random_claims=3,
        units_per_second=2.0,
    )


def test_the_page_tells_what_was_reached_and_what_was_not() -> None:
    page, done = render([trial()], 600, 300)
    assert done
    assert (
        "| rules without composition, recovered | 1.000 [0.207, 1.000] | 1 | at least 90%" in page
    )
    assert "red\\|circles" in page
    missed, done = render([trial(recovered=False)], 600, 300)
    assert not done
    assert "seed 0, red: red circles (claimed; fresh scenes 0.95, against rivals none)" in missed


def test_false_claims_decide_as_well() -> None:
    page, done = render([trial(random=("edges", "dots", *("",) * 62))], 600, 300)
    assert not done
    assert "- random weights: edges" in page
