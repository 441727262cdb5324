"""MILAN's procedure beside ours: the same exemplars, and a page that states the ratio."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from dragoman.evals.vision_exemplar_speed import Speed, measure, reached, render
from dragoman.tools.captioning.vision.images import ImageSet
from dragoman.tools.context import ToolContext
from dragoman.tools.subjects.vision import Preprocessing
from dragoman.tools.subjects.vision_loading import make_vision

SPEED = Speed(64, 100, 3, ours=2.0, per_layer=5.0, second_passes=2.0, bare=1.0, agree=True)


def test_both_procedures_find_the_same(tmp_path: Path) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(3, 4, 3, stride=2),
            nn.ReLU(),
            nn.Conv2d(4, 6, 3),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(6, 3),
        )
    plain = Preprocessing(size=(32, 32), resize=32, mean=(0.5,) * 3, std=(0.25,) * 3)
    subject = make_vision(model, "tiny", plain)
    values = np.random.default_rng(0).integers(0, 256, (20, 32, 32, 3), np.uint8)
    images = ImageSet(
        ids=tuple(map(str, range(20))),
        labels=(None,) * 20,
        digest="noise",
        description="noise",
        decode=lambda number: Image.fromarray(values[number]),
    )
    context = ToolContext(subject, 0, tmp_path, tmp_path / "a", tmp_path / "c")
    speed = measure(context, images, range(subject.n_layers), tmp_path)
    assert speed.agree
    assert (speed.n_images, speed.n_units, speed.n_layers) == (20, 10, 2)
    assert min(speed.ours, speed.per_layer, speed.second_passes, speed.bare) > 0


def test_the_page_states_the_ratio_beside_its_goal() -> None:
    page = render(SPEED)
    assert "| MILAN's procedure over ours | ≥ 3 | 3.5 |" in page
    assert "| one pass a layer alone over ours | | 2.5 |" in page
    assert SPEED.ratio == pytest.approx(3.5)


def test_the_goal_decides() -> None:
    assert reached(SPEED)
    assert not reached(SPEED._replace(second_passes=0.0))
    assert not reached(SPEED._replace(agree=False))
