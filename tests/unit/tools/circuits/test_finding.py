"""Finding a template for pairs: the planted one is found, and nothing where nothing is planted."""

import pytest

from dragoman.core.errors import ToolError
from dragoman.tools.circuits.finding import GENERAL, candidate_templates, find_template
from dragoman.tools.subjects.planted import plant


def quiet(done: int, total: int, text: str) -> None:
    """Progress that nobody watches."""


@pytest.fixture(scope="module")
def planted():
    return plant()


def test_the_template_that_the_planted_subject_answers_is_found(planted):
    truth = planted.truth
    templates = [*GENERAL, *truth.absent.prompt_templates, *truth.linear.prompt_templates]
    found = find_template(planted.subject, truth.linear.samples, templates, 0, quiet)
    assert found.tried[0].template == truth.linear.prompt_templates[0]
    assert found.known.value == 1.0
    assert found.known.baseline < 0.3
    assert found.known.n == 28  # 60 pairs, 5 examples, half of the rest


def test_no_template_is_good_for_what_is_not_planted(planted):
    truth = planted.truth
    templates = [*GENERAL, *truth.absent.prompt_templates]
    found = find_template(planted.subject, truth.absent.samples, templates, 0, quiet)
    assert found.known.value < 0.3


def test_candidates_are_the_callers_ours_and_general_ones_each_once():
    found = candidate_templates(["{} lives in", "The capital of {} is"])
    assert found[0] == "{} lives in"
    assert found.count("The capital of {} is") == 1
    assert set(GENERAL) <= set(found)
    assert len(found) > 40


def test_too_few_pairs_and_templates_without_a_hole_are_refused(planted):
    samples = planted.truth.linear.samples
    with pytest.raises(ToolError, match="3 pairs; at least 12"):
        find_template(planted.subject, samples[:3], ["{} is"], 0, quiet)
    with pytest.raises(ToolError, match="exactly one"):
        find_template(planted.subject, samples, ["lives in"], 0, quiet)
