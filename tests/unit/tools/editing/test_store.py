"""Editors on disk: the same again, or none."""

from pathlib import Path

import pytest
import torch

from dragoman.core.records import JsonObject
from dragoman.tools.editing.directions import Centroids
from dragoman.tools.editing.editors.catalogue import KINDS, Kind, make_editor
from dragoman.tools.editing.fitting import Fit, LayerTrial
from dragoman.tools.editing.selection import StrengthTrial
from dragoman.tools.editing.store import load_editor, save_editor
from dragoman.tools.editing.training import EpochMeasure

INPUTS: JsonObject = {"seed": 3, "split": {"train": ["a", "b"]}}
CPU = torch.device("cpu")


def _fit(kind: Kind = "linear") -> Fit:
    editor = make_editor(kind, 4, 0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in editor.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator))
        editor.strength.fill_(0.8)
        editor.mean.fill_(2.0)
    measured = EpochMeasure(
        epoch=1, validation_loss=0.5, validation_efficacy=0.9, validation_spill_nats=0.1
    )
    return Fit(
        editor,
        kind,
        7,
        (LayerTrial(layer=7, validation_loss=0.7, validation_efficacy=0.8),),
        (
            StrengthTrial(
                strength=0.8,
                efficacy=1.0,
                paraphrase_efficacy=None,
                neighbourhood_specificity=0.9,
                essence=0.7,
                fluency=1.0,
            ),
        ),
        0.5,
        Centroids(("Rome", "Paris"), torch.ones(2, 4)),
        (measured,),
        measured,
    )


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_saved_comes_back(tmp_path: Path, kind: Kind) -> None:
    fit = _fit(kind)
    save_editor(tmp_path / "one", fit, INPUTS)
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == [
        "editor.json",
        "editor.safetensors",
    ]
    loaded = load_editor(tmp_path / "one", INPUTS, CPU)
    assert loaded is not None
    attributes = torch.randn(3, 2, 4, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(loaded.editor(attributes), fit.editor(attributes))
    assert type(loaded.editor) is type(fit.editor)
    assert loaded.difference_strength == 0.5
    assert loaded.centroids.objects == ("Rome", "Paris")
    torch.testing.assert_close(loaded.centroids.vectors, torch.ones(2, 4))
    assert (loaded.layer, loaded.trials, loaded.strengths, loaded.history, loaded.best) == (
        fit.layer,
        fit.trials,
        fit.strengths,
        fit.history,
        fit.best,
    )


def test_what_is_absent_foreign_or_damaged_is_none(tmp_path: Path) -> None:
    folder = tmp_path / "one"
    assert load_editor(folder, INPUTS, CPU) is None
    save_editor(folder, _fit(), INPUTS)
    assert load_editor(folder, {**INPUTS, "seed": 4}, CPU) is None
    weights = folder / "editor.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(bytes(content))
    assert load_editor(folder, INPUTS, CPU) is None
    save_editor(folder, _fit(), INPUTS)
    weights.unlink()
    assert load_editor(folder, INPUTS, CPU) is None
    save_editor(folder, _fit(), INPUTS)
    (folder / "editor.json").write_text("{")
    assert load_editor(folder, INPUTS, CPU) is None
