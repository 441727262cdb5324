"""Sixty scenes of which everything is known, looked at once for all tests of captions of images."""

from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from dragoman.tools.captioning.vision.images import ImageSet, folder_images
from dragoman.tools.captioning.vision.survey import Asked, Survey, survey
from dragoman.tools.context import ToolContext
from dragoman.tools.subjects.planted_scenes import PALETTE, SIDE, Scene, scene
from dragoman.tools.subjects.vision import Preprocessing, VisionLayer, VisionSubject

N_SCENES = 60
COLOURS = tuple(PALETTE)
N_UNITS = len(COLOURS) + 10


class ColourUnits(nn.Module):
    """A unit for each colour of the palette, and ten for random ones, four pixels a place."""

    colours: Tensor

    def __init__(self) -> None:
        super().__init__()
        palette = torch.tensor(list(PALETTE.values()), dtype=torch.float32) / 255
        others = torch.rand(10, 3, generator=torch.Generator().manual_seed(0))
        self.register_buffer("colours", torch.cat([palette, others])[None, :, :, None, None])

    def forward(self, pixels: Tensor) -> Tensor:
        distances = (nn.functional.avg_pool2d(pixels, 4)[:, None] - self.colours).abs().sum(dim=2)
        return (1 - 4 * distances).relu()


def colour_subject() -> VisionSubject:
    """Says which colour of the palette there is most of."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        classifier = nn.Linear(N_UNITS, len(COLOURS), bias=False)
    with torch.no_grad():
        classifier.weight.zero_()
        classifier.weight[:, : len(COLOURS)] = 30 * torch.eye(len(COLOURS))
    units = ColourUnits()
    model = nn.Sequential(units, nn.AdaptiveAvgPool2d(1), nn.Flatten(), classifier)
    return VisionSubject(
        model,
        "colours",
        layers=[VisionLayer("0", N_UNITS, (SIDE // 4, SIDE // 4))],
        preprocessing=Preprocessing(
            size=(SIDE, SIDE), resize=SIDE, mean=(0.0,) * 3, std=(1.0,) * 3
        ),
        n_classes=len(COLOURS),
        labels=COLOURS,
    )


class Gallery(NamedTuple):
    """A folder of scenes, the subject that looks at them, and what a survey sees."""

    folder: Path
    home: Path
    """Its cache holds what was measured of the scenes."""
    scenes: tuple[Scene, ...]
    subject: VisionSubject
    images: ImageSet
    survey: Survey
    """Of the colours' units."""

    def context(self, artifacts: Path) -> ToolContext:
        """A context over the gallery's cache whose artifacts lie elsewhere; no labeller."""
        return ToolContext(
            self.subject,
            0,
            artifacts,
            artifacts / "artifacts" / "x",
            self.home / "cache",
            weights=self.home / "weights",
        )


@pytest.fixture(scope="session")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Gallery:
    """The scenes as a folder of pictures, among them one file that is none."""
    folder, home = tmp_path_factory.mktemp("scenes"), tmp_path_factory.mktemp("home")
    scenes = tuple(scene(9, number) for number in range(N_SCENES))
    for number, each in enumerate(scenes):
        Image.fromarray(each.pixels).save(folder / f"{number:02}.png")
    (folder / "broken.png").write_bytes((folder / "00.png").read_bytes()[:400])
    subject, images = colour_subject(), folder_images(folder)
    context = ToolContext(subject, 0, home, home / "a", home / "cache")
    seen = survey(context, images, [Asked(subject, 0, range(N_UNITS))], None)
    return Gallery(folder, home, scenes, subject, images, seen)
