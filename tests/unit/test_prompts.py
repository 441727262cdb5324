"""Prompts: holes are filled, missing and spare names are errors."""

from importlib import resources

import pytest

import dragoman.prompts
from dragoman.prompts import render

NAMES = sorted(
    path.name.removesuffix(".md")
    for path in resources.files(dragoman.prompts).iterdir()
    if path.name.endswith(".md")
)


def test_a_missing_and_a_spare_name_are_errors() -> None:
    with pytest.raises(KeyError, match="figures"):
        render("critique", hypothesis="h", options="o")
    with pytest.raises(KeyError, match="no hole named colour"):
        render("critique", hypothesis="h", options="o", figures="f", colour="red")


def test_values_are_not_read_for_holes() -> None:
    assert "${options}" in render("critique", hypothesis="${options}", options="o", figures="{}")


@pytest.mark.parametrize("name", NAMES)
def test_every_prompt_has_text(name: str) -> None:
    text = resources.files(dragoman.prompts).joinpath(f"{name}.md").read_text("utf-8")
    assert len(text.split()) > 5
