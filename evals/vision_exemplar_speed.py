"""What exemplars of every unit of a vision subject cost, beside MILAN's procedure.

    python -m dragoman.evals.vision_exemplar_speed --out docs/evals/vision_exemplar_speed.md

MILAN (Hernandez et al. 2022) goes over the data set once for each layer, for the strongest pictures
and the quantiles, and runs the strongest ones once more for their masks. Ours goes over it once for
all layers and keeps the maps. Both are run here by the same code on the same pictures, batch and
thread, so that the only difference is the procedure: the rival's forward pass ends at the layer in
question, and it has our fast statistics too. Their results must agree to the bit.

Times are seconds of the processor, not of the clock, so that other work on the machine counts
little; the figure is their ratio within one run.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from dragoman.core.files import write_atomic
from dragoman.core.settings import Settings
from dragoman.tools.captioning.vision.exemplars import BATCH, collect
from dragoman.tools.captioning.vision.images import ImageSet
from dragoman.tools.captioning.vision.masks import masks
from dragoman.tools.captioning.vision.probe import probe_images
from dragoman.tools.captioning.vision.store import VisionExemplars
from dragoman.tools.context import ToolContext
from dragoman.tools.subjects.efficientnet import load_efficientnet

GOAL = 3.0
SUBJECT = "efficientnet-lite0"


class Speed(NamedTuple):
    """Seconds of the processor for the same exemplars."""

    n_images: int
    n_units: int
    n_layers: int
    ours: float
    per_layer: float
    """One pass for each layer, maps kept as ours are: MILAN without its second pass."""
    second_passes: float
    """What MILAN's passes for the masks take besides."""
    bare: float
    """One forward pass over the pictures and nothing else."""
    agree: bool
    """Both found the same pictures, activations, maps and thresholds."""

    @property
    def ratio(self) -> float:
        """MILAN's procedure over ours."""
        return (self.per_layer + self.second_passes) / self.ours

    @property
    def ratio_without_masks(self) -> float:
        """One pass a layer over ours."""
        return self.per_layer / self.ours


def measure(context: ToolContext, images: ImageSet, layers: Sequence[int], folder: Path) -> Speed:
    """Both procedures, one after the other."""
    subject = context.vision
    # The first forward pass of a process pays for what all later ones find ready.
    subject.logits(subject.pixels(np.stack([subject.view(images.load(0))])))
    began = time.process_time()
    ours = collect(context, images, layers, folder=folder / "ours")
    took = time.process_time() - began
    began = time.process_time()
    single = [
        collect(context, images, [layer], folder=folder / f"layer-{layer}") for layer in layers
    ]
    per_layer = time.process_time() - began
    began = time.process_time()
    for layer, found in zip(layers, single, strict=True):
        _masks_by_a_second_pass(context, images, found, layer)
    second = time.process_time() - began
    began = time.process_time()
    for start in range(0, len(images), BATCH):
        numbers = range(start, min(start + BATCH, len(images)))
        views = np.stack([subject.view(images.load(number)) for number in numbers])
        subject.logits(subject.pixels(views))
    bare = time.process_time() - began
    return Speed(
        n_images=len(images),
        n_units=sum(subject.n_units(layer) for layer in layers),
        n_layers=len(layers),
        ours=took,
        per_layer=per_layer,
        second_passes=second,
        bare=bare,
        agree=all(_equal(ours, found, layer) for layer, found in zip(layers, single, strict=True)),
    )


def _masks_by_a_second_pass(
    context: ToolContext, images: ImageSet, found: VisionExemplars, layer: int
) -> None:
    """Every strongest picture of any unit once more through the network, and its units' masks."""
    subject = context.vision
    best = np.stack(
        [np.resize(found.images(layer, unit), 15) for unit in range(found.n_units(layer))]
    )
    thresholds = torch.from_numpy(found.thresholds(layer))
    shown = np.unique(best)
    for start in range(0, len(shown), BATCH):
        numbers = shown[start : start + BATCH]
        views = np.stack([subject.view(images.load(int(number))) for number in numbers])
        maps = subject.maps(subject.pixels(views), [layer])[layer]
        for number, by_unit in zip(numbers, maps, strict=True):
            units = torch.from_numpy(np.flatnonzero((best == number).any(axis=1)))
            masks(by_unit[units], thresholds[units])


def _equal(ours: VisionExemplars, theirs: VisionExemplars, layer: int) -> bool:
    mine, other = ours.tensors(layer), theirs.tensors(layer)
    return all(torch.equal(mine[name], other[name]) for name in mine)


def render(speed: Speed) -> str:
    """The figures as Markdown."""
    lines = [
        "# What exemplars of every vision unit cost",
        "",
        f"All {speed.n_units:,} units of the {speed.n_layers} layers of `{SUBJECT}` on "
        f"{speed.n_images} pictures of the probe set, seconds of the processor, one thread. "
        "MILAN's procedure is run by our own code on the same pictures: one pass for each layer "
        "that ends at the layer, and each strongest picture once more for the masks.",
        "",
        "| | goal | measured |",
        "|---|---|---|",
        f"| MILAN's procedure over ours | ≥ {GOAL:g} | {speed.ratio:.1f} |",
        f"| one pass a layer alone over ours | | {speed.ratio_without_masks:.1f} |",
        f"| ours over one bare forward pass | | {speed.ours / speed.bare:.1f} |",
        f"| both found the same, to the bit | yes | {'yes' if speed.agree else '**no**'} |",
        "",
        f"Ours {speed.ours:.1f} s, one pass a layer {speed.per_layer:.1f} s, second passes "
        f"{speed.second_passes:.1f} s, bare pass {speed.bare:.1f} s; load average at the end "
        f"{os.getloadavg()[0]:.1f} on {os.cpu_count()} cores.",
        "",
        f"Made by `python -m dragoman.evals.vision_exemplar_speed --images {speed.n_images}`.",
        "",
    ]
    return "\n".join(lines)


def reached(speed: Speed) -> bool:
    """Fast enough, and with the same result."""
    return speed.ratio >= GOAL and speed.agree


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; 0 when the goal is reached, else 1."""
    parser = argparse.ArgumentParser(
        prog="python -m dragoman.evals.vision_exemplar_speed",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--out", type=Path, help="write the table to this Markdown file")
    options = parser.parse_args(arguments)
    settings = Settings()
    torch.set_num_threads(1)
    subject = load_efficientnet(SUBJECT, settings.weights_folder)
    with tempfile.TemporaryDirectory(prefix="dragoman-vision-speed-") as name:
        folder = Path(name)
        context = ToolContext(subject, 0, folder, folder / "artifacts", folder / "cache")
        images = probe_images(0, options.images)
        speed = measure(context, images, range(subject.n_layers), folder)
    page = render(speed)
    sys.stdout.write(page)
    if options.out:
        write_atomic(options.out, page)
    return 0 if reached(speed) else 1


if __name__ == "__main__":
    sys.exit(main())
