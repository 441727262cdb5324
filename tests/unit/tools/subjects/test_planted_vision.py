"""The planted vision subject: units do what is said of them, rivals nothing that has a name."""

from typing import TypeAlias

import numpy as np
import pytest
import torch
from jaxtyping import Bool
from numpy import ndarray

from dragoman.tools.subjects.planted_scenes import PLACES, Scene, scene
from dragoman.tools.subjects.planted_vision import PlantedVision, has, planted_vision

N_SCENES = 48
Active: TypeAlias = Bool[ndarray, "scenes units"]


@pytest.fixture(scope="module")
def planted() -> PlantedVision:
    return planted_vision(3)


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [scene(3, number) for number in range(N_SCENES)]


@pytest.fixture(scope="module")
def active(planted: PlantedVision, scenes: list[Scene]) -> tuple[Active, Active]:
    """Where units of the subject and of its twin are active; both measure the same properties."""
    pixels = np.stack([each.pixels for each in scenes]).transpose(0, 3, 1, 2) / np.float32(255)
    networks = [each.model.get_submodule("units") for each in (planted.subject, planted.twin)]
    with torch.no_grad():
        properties = planted.subject.model.get_submodule("properties")(torch.from_numpy(pixels))
        peaks = [network(properties).amax(dim=(2, 3)).numpy() for network in networks]
    return peaks[0] > 0.5, peaks[1] > 0.5


def places_of(scenes: list[Scene]) -> Bool[ndarray, "scenes places"]:
    centres = np.array([[thing.centre for thing in each.objects] for each in scenes])
    nearest = np.abs(centres[:, :, None] - np.array(PLACES)).sum(axis=-1).argmin(axis=-1)
    return (nearest[..., None] == np.arange(len(PLACES))).any(axis=1)


def test_units_are_active_where_an_object_satisfies_their_rule(
    planted: PlantedVision, scenes: list[Scene], active: tuple[Active, Active]
) -> None:
    found, _ = active
    for unit in planted.units:
        truth = [any(has(thing, unit.rule) for thing in each.objects) for each in scenes]
        # "Red, no circles" looks around a place too: two objects side by side may hide one another.
        assert (found[:, unit.unit] == truth).mean() > 0.95, unit.name


def test_rivals_care_for_the_place_and_for_nothing_that_stands_there(
    planted: PlantedVision, scenes: list[Scene], active: tuple[Active, Active]
) -> None:
    at = places_of(scenes)
    moved = [unit.unit for unit in planted.units]
    for found, units in zip(active, (planted.rivals, moved), strict=True):
        for unit in units:
            own = [place for place in range(len(PLACES)) if found[at[:, place], unit].all()]
            assert 2 <= len(own) <= 4
            assert (found[:, unit] == at[:, own].any(axis=1)).all()


def test_a_twin_has_the_rules_elsewhere_and_rivals_of_its_own(
    planted: PlantedVision, active: tuple[Active, Active]
) -> None:
    subject, twin = active
    columns = {subject[:, unit].tobytes() for unit in planted.rivals}
    moved = [unit.unit for unit in planted.units]
    same = sum(twin[:, unit].tobytes() in columns for unit in moved)
    # By chance a few rivals of both look at the same places.
    assert same < len(moved) / 2
    rules = {subject[:, unit].tobytes() for unit in moved}
    assert {twin[:, unit].tobytes() for unit in planted.rivals} >= rules
