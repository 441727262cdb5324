"""Every kind of editor: where it starts, what it reads, and that the linear ones are affine."""

import pytest
import torch
from torch import Tensor

from dragoman.tools.editing.editors.base import READ, Editor
from dragoman.tools.editing.editors.catalogue import KINDS, Kind, make_editor

ATTRIBUTE, ENTITY = READ.index("attribute"), READ.index("entity")
AFFINE: list[Kind] = ["linear", "linear_entity", "low_rank", "low_rank_entity"]


def _inputs() -> Tensor:
    return torch.randn(20, 2, 5, generator=torch.Generator().manual_seed(0)) * 3 + 1


def _filled(kind: Kind) -> Editor:
    editor = make_editor(kind, 5, 0)
    editor.standardise(_inputs())
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in editor.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator))
    return editor.requires_grad_(False)


@pytest.mark.parametrize("kind", KINDS)
def test_training_starts_from_the_centred_attribute(kind: Kind) -> None:
    editor, inputs = make_editor(kind, 5, 0), _inputs()
    editor.standardise(inputs)
    attribute = inputs[:, ATTRIBUTE]
    torch.testing.assert_close(editor(inputs), attribute - attribute.mean(0))


@pytest.mark.parametrize("kind", KINDS)
def test_training_begins_with_the_directions_that_it_is_given(kind: Kind) -> None:
    generator = torch.Generator().manual_seed(2)
    weight, noise = torch.randn(5, 5, generator=generator), torch.randn(20, 5, generator=generator)
    editor, inputs = make_editor(kind, 5, 0).requires_grad_(False), _inputs()
    editor.standardise(inputs)
    directions = inputs[:, ATTRIBUTE] @ weight.T + 4
    editor.begin(inputs, directions)
    unseen = inputs + 0.5
    expected = unseen[:, ATTRIBUTE] @ weight.T + 4
    spread = float(directions.std())
    assert float((editor(unseen) - expected).abs().max()) < 0.1 * spread
    # It keeps no noise that the attribute does not tell of.
    editor.begin(inputs, noise)
    assert float(editor(inputs).std()) < 0.8 * float(noise.std())


@pytest.mark.parametrize("kind", AFFINE)
def test_the_linear_ones_are_affine_at_any_strength(kind: Kind) -> None:
    editor, inputs = _filled(kind), _inputs()
    first, second = inputs[:1], inputs[1:2]
    middle = editor((first + second) / 2)
    torch.testing.assert_close(middle, (editor(first) + editor(second)) / 2)
    whole = editor(inputs)
    editor.strength.fill_(0.5)
    torch.testing.assert_close(editor(inputs), whole / 2)


def test_the_hidden_layer_is_not_affine() -> None:
    editor, inputs = _filled("mlp"), _inputs()
    middle = editor((inputs[:1] + inputs[1:2]) / 2)
    straight = (editor(inputs[:1]) + editor(inputs[1:2])) / 2
    assert float((middle - straight).abs().max()) > 0.1


@pytest.mark.parametrize("kind", KINDS)
def test_only_some_kinds_look_at_the_entity(kind: Kind) -> None:
    editor, inputs = _filled(kind), _inputs()
    other = inputs.clone()
    other[:, ENTITY] += 1
    differs = bool((editor(other) - editor(inputs)).abs().max() > 1e-3)
    assert differs == kind.endswith("_entity")


def test_the_low_rank_correction_is_of_low_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dragoman.tools.editing.editors.low_rank.RANK", 2)
    editor, inputs = _filled("low_rank"), _inputs()
    correction = editor.correction(inputs)
    assert int(torch.linalg.matrix_rank(correction - correction[:1])) == 2
    full = _filled("linear").correction(inputs)
    assert int(torch.linalg.matrix_rank(full - full[:1])) == 5


@pytest.mark.parametrize("kind", KINDS)
def test_first_weights_come_from_the_seed_alone(kind: Kind) -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    first = make_editor(kind, 5, 7).state_dict()
    second = make_editor(kind, 5, 7).state_dict()
    torch.testing.assert_close(torch.rand(2), expected, rtol=0, atol=0)
    assert all(bool((value == second[name]).all()) for name, value in first.items())
