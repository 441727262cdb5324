"""The harmonic mean of five, its interval and its lead; methods and what they ask."""

import math

import numpy as np
import pytest

from dragoman.tools.editing.directions import EDITED, NO_EDIT, PREFIX, REPLACED
from dragoman.tools.editing.knowledge import Knowledge
from dragoman.tools.editing.methods import all_methods, stand_in
from dragoman.tools.editing.overall import Overall, harmonic
from dragoman.tools.editing.records import EditRecord, ask
from dragoman.tools.relations import Sample


def test_the_harmonic_mean_is_that_of_the_means() -> None:
    values = np.array([[1.0, 0.5, 1.0, 0.4, 1.2], [1.0, 1.0, 1.0, 0.6, 1.2]])
    expected = 5 / (1 + 1 / 0.75 + 1 + 1 / 0.5 + 1)  # Fluency counts as 1 at most.
    assert float(harmonic(values[None])[0]) == pytest.approx(expected)


def test_one_failure_is_a_failure_and_what_nobody_has_is_left_out() -> None:
    failing = np.array([[1.0, 1.0, 0.0, 1.0, 1.0]])
    assert float(harmonic(failing[None])[0]) == 0
    missing = np.array([[1.0, math.nan, 0.5, 1.0, 1.0], [1.0, math.nan, 0.5, 1.0, 1.0]])
    assert float(harmonic(missing[None])[0]) == pytest.approx(4 / (1 + 2 + 1 + 1))


def _overall() -> Overall:
    generator = np.random.default_rng(0)
    spread = generator.uniform(-0.1, 0.1, (20, 5))
    return Overall(
        tuple(f"e{number}" for number in range(20)),
        {
            EDITED: 0.8 + spread,
            NO_EDIT: np.tile([0.0, 0.0, 1.0, 1.0, 1.0], (20, 1)),
            PREFIX: 0.6 + spread,
        },
    )


def test_the_editor_stands_beside_its_best_baseline() -> None:
    five = _overall()
    edited, none, prefix = five.measure(0)
    assert (edited.scope, none.scope, prefix.scope) == ("", NO_EDIT, PREFIX)
    assert edited.control.startswith(PREFIX)
    assert edited.baseline == prefix.value == pytest.approx(five.of(PREFIX))
    assert none.value == 0
    assert edited.ci95[0] <= edited.value <= edited.ci95[1]
    value, low, high = five.lead(0)
    assert value == pytest.approx(edited.value - prefix.value)
    # The entities are the same for both, so the lead is surer than either mean.
    assert 0 < high - low < edited.ci95[1] - edited.ci95[0]


KNOWLEDGE = Knowledge(
    facts=(
        Sample(subject="Spain", object="Madrid"),
        Sample(subject="Italy", object="Rome"),
        Sample(subject="Lazio", object="Rome"),
    ),
    templates=("The capital of {} is",),
    known={"The capital of {} is": frozenset({"Spain", "Lazio"})},
    top1={},
    first_tokens={"Madrid": 1, "Rome": 2},
)
RECORD = EditRecord(entity="Spain", old_object="Madrid", new_object="Rome")


def test_prefix_and_replaced_entity_ask_otherwise() -> None:
    assert stand_in(RECORD, KNOWLEDGE) == "Lazio"  # The one that the subject knows.
    methods = {method.name: method for method in all_methods([RECORD], KNOWLEDGE, {})}
    prompt = ask("Of Spain, Spain and {}: {}".replace("{}: {}", "{}"), "Spain")
    told = methods[PREFIX].prompt(0, prompt)
    assert told.text == f"The capital of Spain is Rome. {prompt.text}"
    assert told.text[: told.entity_end].endswith("Spain")
    # The occurrence that would be edited is the one that is replaced.
    replaced = methods[REPLACED].prompt(0, prompt)
    assert replaced.text == "Of Spain, Spain and Lazio"
    assert replaced.text[: replaced.entity_end].endswith("Lazio")
    assert methods[NO_EDIT].prompt(0, prompt) == prompt


def test_no_entity_has_an_object_from_outside() -> None:
    outside = RECORD.model_copy(update={"new_object": "Atlantis"})
    assert stand_in(outside, KNOWLEDGE) is None
    assert REPLACED not in [method.name for method in all_methods([outside], KNOWLEDGE, {})]
