"""Passes that start in the middle give what whole passes give, in place or not."""

import pytest
import torch
from torch import Tensor, nn

from dragoman.core.errors import ToolError
from dragoman.tools.subjects.vision import Preprocessing, VisionLayer, VisionSubject
from dragoman.tools.subjects.vision_resuming import starting_at

PLAIN = Preprocessing(size=(16, 16), resize=16, mean=(0.5,) * 3, std=(0.25,) * 3)


class Residual(nn.Module):
    """As torchvision writes them: one nonlinearity used twice, and a sum in place."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = (nn.Conv2d(6, 6, 3, padding=1) for _ in range(2))
        self.relu = nn.ReLU(inplace=True)

    def forward(self, maps: Tensor) -> Tensor:
        found: Tensor = self.second(self.relu(self.first(maps)))
        found += maps
        return self.relu(found)


def residual_subject() -> VisionSubject:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(3, 6, 3, stride=2, padding=1),
            nn.BatchNorm2d(6),
            Residual(),
            Residual(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(6, 4),
        )
    layers = [VisionLayer(name, 6, (8, 8)) for name in ("1", "2", "2.second", "3")]
    return VisionSubject(model, "residual", layers=layers, preprocessing=PLAIN, n_classes=4)


@pytest.mark.parametrize("layer", range(4))
def test_whatever_is_ablated_comes_out_as_from_a_whole_pass(layer: int) -> None:
    subject = residual_subject()
    pixels = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    sets: list[list[int]] = [[], [0], [1, 4], []]
    whole = [subject.logits(pixels, {layer: units}) for units in sets]
    with starting_at(subject, layer, pixels):
        resumed = [subject.logits(pixels, {layer: units}) for units in sets]
    for one, other in zip(resumed, whole, strict=True):
        assert torch.equal(one, other)
    assert not torch.equal(whole[0], whole[2])
    assert torch.equal(subject.logits(pixels), whole[0])


def test_no_module_before_the_layer_runs_again() -> None:
    subject = residual_subject()
    pixels = torch.randn(2, 3, 16, 16)
    ran: list[nn.Module] = []
    plain = nn.Conv2d.forward

    def noting(module: nn.Conv2d, maps: Tensor) -> Tensor:
        ran.append(module)
        return plain(module, maps)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nn.Conv2d, "forward", noting)
        with starting_at(subject, 1, pixels):
            before = len(ran)
            subject.logits(pixels, {1: [0]})
            assert ran[before:] == [
                subject.model.get_submodule(name) for name in ("3.first", "3.second")
            ]


def test_a_layer_that_is_not_there_is_told() -> None:
    with (
        pytest.raises(ToolError, match=r"layer 4 is outside 0\.\.3"),
        starting_at(residual_subject(), 4, torch.zeros(1, 3, 16, 16)),
    ):
        pass
