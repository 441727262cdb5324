"""Edits of the real default subject: they take hold where random directions do not."""

from pathlib import Path

import pytest
import torch

from dragoman.tools.context import ToolContext
from dragoman.tools.editing.fitting import PLANS
from dragoman.tools.editing.tool import edit_representation
from dragoman.tools.subjects.language import LanguageSubject


@pytest.mark.weights
def test_continents_can_be_edited(
    smollm2: LanguageSubject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A part of a quick run: one layer, fewer facts, records and texts.
    small = PLANS["quick"].model_copy(
        update={
            "max_facts": 24,
            "max_templates": 2,
            "train_records": 64,
            "max_epochs": 2,
            "spared_cases": 6,
            "max_validation_entities": 4,
            "validation_texts": 2,
            "validation_tokens": 8,
            "max_test_entities": 6,
            "test_per_entity": 1,
            "generated_prompts": 1,
            "generated_tokens": 8,
        }
    )
    monkeypatch.setitem(PLANS, "quick", small)
    ctx = ToolContext(
        network=smollm2,
        seed=0,
        home=tmp_path,
        artifacts=tmp_path / "run",
        cache=tmp_path / "cache",
    )
    arguments = edit_representation.parse(
        {"relation": "country continent", "layer": 17, "effort": "quick"}
    )
    result = edit_representation.function(ctx, **arguments)
    efficacy = result.measurements[0]
    assert efficacy.metric == "efficacy"
    assert efficacy.value >= 0.6
    assert efficacy.ci95[0] > efficacy.baseline
    specificity = next(
        one for one in result.measurements if one.metric == "neighbourhood_specificity"
    )
    assert specificity.value > specificity.baseline + 0.2
    assert all(not weight.requires_grad for weight in smollm2.model.parameters())
    assert all(weight.grad is None for weight in smollm2.model.parameters())
    assert torch.is_grad_enabled()
