"""The same network with freshly drawn weights: a control, not a model.

Adebayo et al. 2018 (arXiv:1810.03292): an explanation that a network with random weights gets as
well is not about what was learnt.
"""

import copy

import torch
from torch import Tensor, nn

from dragoman.tools.subjects.vision import VisionSubject

_CALIBRATION_IMAGES = 16


@torch.no_grad()
def random_vision_twin(subject: VisionSubject, seed: int) -> VisionSubject:
    """`subject`'s architecture, layers and preprocessing with weights drawn by `seed`.

    Where it normalises by running statistics, they are measured on smooth noise: with stale ones
    activations would die out from layer to layer, and a dead twin controls nothing.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = copy.deepcopy(subject.model)
        for module in model.modules():
            _redraw(module)
        _calibrate(model, subject)
    return subject.with_model(model, f"{subject.identity.name} with random weights (seed {seed})")


def _redraw(module: nn.Module) -> None:
    own = list(module.parameters(recurse=False))
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif callable(reset := getattr(module, "reset_parameters", None)):
        reset()
    else:
        for weight in own:  # class tokens and position embeddings
            nn.init.normal_(weight, std=0.02)


def _calibrate(model: nn.Module, subject: VisionSubject) -> None:
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    if not norms:
        return
    for norm in norms:
        norm.reset_running_stats()
        # None averages over all that is seen instead of forgetting.
        norm.momentum = None
        norm.train()
    model(_smooth_noise(subject))
    model.eval()


def _smooth_noise(subject: VisionSubject) -> Tensor:
    height, width = subject.preprocessing.size
    noise = torch.zeros(_CALIBRATION_IMAGES, 3, height, width)
    for cells in (4, 16, 64):
        coarse = torch.randn(_CALIBRATION_IMAGES, 3, cells, cells)
        noise += nn.functional.interpolate(coarse, (height, width), mode="bilinear")
    return noise / noise.std()
