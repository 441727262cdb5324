"""Every planted unit computes its rule, exactly, and the random twin computes none of them."""

from pathlib import Path

import numpy as np
import pytest
from jaxtyping import Float
from numpy import ndarray

from dragoman.tools.captioning.tokens import token_table
from dragoman.tools.captioning.units import read_units
from dragoman.tools.context import ToolContext
from dragoman.tools.subjects.language import LanguageSubject
from dragoman.tools.subjects.planted_units import UNIT_LAYER, PlantedUnits, plant_units
from dragoman.tools.subjects.planted_units_words import Tokens, rule


@pytest.fixture(scope="module")
def planted() -> PlantedUnits:
    return plant_units(3)


@pytest.fixture(scope="module")
def documents(planted: PlantedUnits) -> list[str]:
    return planted.subject.generate(["the"] * 48, 64, temperature=0.9, seed=1)


def read(
    subject: LanguageSubject, documents: list[str], neurons: list[int], folder: Path
) -> Float[ndarray, "tokens units"]:
    context = ToolContext(subject, 0, folder, folder, folder)
    table = token_table(documents, subject.tokenizer)
    return read_units(context, documents, table, UNIT_LAYER, neurons)


def rules_of(planted: PlantedUnits, documents: list[str]) -> ndarray:
    units = planted.planned.units
    rules = [*(unit.rule for unit in units), *(unit.rival for unit in units)]
    return np.concatenate(
        [np.stack([planted.holds(each, text.split()) for each in rules], 1) for text in documents]
    )


def test_there_are_sixty_units_with_and_without_composition(planted: PlantedUnits) -> None:
    units = planted.planned.units
    assert len(units) == 60
    assert sum(unit.composed for unit in units) == 24
    assert len(set(planted.neurons) | set(planted.rivals)) == 120
    assert len({unit.rule for unit in units}) == 60
    assert all(unit.rule != unit.rival for unit in units)
    assert sum(len(unit.senses) == 2 for unit in units) == 4


def test_units_and_rivals_fire_where_their_rules_hold_and_are_zero_elsewhere(
    planted: PlantedUnits, documents: list[str], tmp_path: Path
) -> None:
    found = read(planted.subject, documents, [*planted.neurons, *planted.rivals], tmp_path)
    truth = rules_of(planted, documents)
    assert np.array_equal(found > 0, truth)
    assert found[truth].min() > 0.5
    assert truth.any(axis=0).mean() > 0.9


def test_the_random_twin_holds_none_of_the_rules(
    planted: PlantedUnits, documents: list[str], tmp_path: Path
) -> None:
    found = read(planted.random_twin, documents, [*planted.neurons], tmp_path) > 0
    truth = rules_of(planted, documents)[:, :60]
    agreement = (found & truth).sum(0) / np.maximum((found | truth).sum(0), 1)
    assert agreement.max() < 0.5
    # The same numbers in another order.
    for name, weight in planted.subject.model.state_dict().items():
        twin = planted.random_twin.model.state_dict()[name]
        assert np.array_equal(np.sort(weight.numpy().ravel()), np.sort(twin.numpy().ravel()))


def test_equal_seeds_give_equal_weights_and_others_other_rules() -> None:
    first, again, other = plant_units(1), plant_units(1), plant_units(2)
    assert first.subject.identity.digest == again.subject.identity.digest
    assert first.random_twin.identity.digest == again.random_twin.identity.digest
    assert first.neurons != other.neurons
    assert first.planned.units[0].name != other.planned.units[0].name


def test_quotation_marks_close_and_open_in_turn(documents: list[str]) -> None:
    for text in documents:
        marks = [word for word in text.split() if word in {"\u201c", "\u201d"}]
        assert marks == ["\u201c", "\u201d"] * (len(marks) // 2) + ["\u201c"] * (len(marks) % 2)


@pytest.mark.parametrize(
    ("text", "said", "held"),
    [
        ("numbers & !years", "42 1987 the 7", [True, False, False, True]),
        ("after of", "of gold of", [False, True, False]),
        ("quoted", "a \u201c b \u201d c", [False, True, True, False, False]),
        ("first 1 | commas", "a , b", [True, True, False]),
    ],
)
def test_rules_say_what_they_say(
    planted: PlantedUnits, text: str, said: str, held: list[bool]
) -> None:
    tokens = Tokens(tuple(said.split()))
    assert rule(text).holds(tokens, planted.planned.features).tolist() == held
