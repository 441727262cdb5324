"""EfficientNet-Lite2 as a labeller: which of 1000 classes, and which kinds of things, stand where.

The classifier is linear in the mean of its last feature map, so the same linear map applied at
each place says what that place would be taken for (class activation maps, Zhou et al. 2016,
arXiv:1512.04150).
"""

from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, UInt8
from numpy import ndarray
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from dragoman.tools.captioning.vision.labels import memberships
from dragoman.tools.captioning.vision.textures import GRID
from dragoman.tools.subjects.efficientnet import load_efficientnet
from dragoman.tools.subjects.vision import VisionSubject
from dragoman.tools.weights import find_weights, state

WEIGHTS = "efficientnet-lite2"
TOP = 3
"""Classes that are kept for each place."""
_GLOBAL_SHARE = 0.5
"""Weight of the whole image beside the place: a class that the image as a whole does not show is
seldom at one of its places."""


class Labels(NamedTuple):
    """What the labeller sees in a batch of images, place by place."""

    kinds: Float[ndarray, "images 14 14 kinds"]
    """Probability of each kind: the sum over its classes."""
    top: npt.NDArray[np.int16]
    """[images, 14, 14, TOP]: the most probable classes."""
    top_probability: Float[ndarray, "images 14 14 top"]


class Labeller:
    """Reads class and kind probabilities off images; its weights are loaded on first use."""

    def __init__(self, weights_folder: Path) -> None:
        self._folder = weights_folder

    @property
    def available(self) -> bool:
        """Whether its weights are there."""
        return state(find_weights(WEIGHTS), self._folder) in ("verified", "unverified")

    @cached_property
    def subject(self) -> VisionSubject:
        """The classifier; `UserError` where its weights are not there."""
        return load_efficientnet(WEIGHTS, self._folder)

    @torch.no_grad()
    def places(self, views: UInt8[ndarray, "images h w 3"]) -> Labels:
        """Labels at each of 14 by 14 places of images that were cut out already."""
        features = self._features(views)
        classifier = self._classifier
        local = functional.conv2d(features, classifier.weight[:, :, None, None], classifier.bias)
        whole = local.mean(dim=(2, 3), keepdim=True)
        mixed = _GLOBAL_SHARE * whole + (1 - _GLOBAL_SHARE) * local
        grid = functional.interpolate(mixed, (GRID, GRID), mode="bilinear", align_corners=False)
        probabilities = grid.softmax(dim=1).permute(0, 2, 3, 1)
        top = probabilities.topk(TOP, dim=-1)
        kinds = probabilities @ torch.from_numpy(memberships())
        return Labels(kinds.numpy(), top.indices.to(torch.int16).numpy(), top.values.numpy())

    @torch.no_grad()
    def whole(self, views: UInt8[ndarray, "images h w 3"]) -> Float[ndarray, "images classes"]:
        """Class probabilities of whole images."""
        features = self._features(views).mean(dim=(2, 3))
        probabilities: Float[ndarray, "images classes"] = (
            self._classifier(features).softmax(dim=-1).numpy()
        )
        return probabilities

    @property
    def _classifier(self) -> nn.Linear:
        classifier = self.subject.model.classifier
        assert isinstance(classifier, nn.Linear)
        return classifier

    def _features(self, views: UInt8[ndarray, "images h w 3"]) -> Float[Tensor, "images d h w"]:
        height, width = self.subject.preprocessing.size
        resized = [
            np.asarray(Image.fromarray(view).resize((width, height), Image.Resampling.BICUBIC))
            for view in views
        ]
        last = self.subject.n_layers - 1
        return self.subject.maps(self.subject.pixels(np.stack(resized)), [last])[last]
