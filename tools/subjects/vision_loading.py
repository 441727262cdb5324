"""Open a vision subject by name: packaged weights, a model folder, or weights of a vision library.

Weights come from local files alone: safetensors, or a `.pth` that the person names by path, of
which only tensors are read (`weights_only`). Nothing is fetched and nothing in them is executed.
"""

import json
import re
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoModelForImageClassification
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES,
)

from dragoman.core.errors import UserError
from dragoman.tools.subjects.efficientnet import VARIANTS, imagenet_labels, load_efficientnet
from dragoman.tools.subjects.huggingface import load_weights, read_configuration
from dragoman.tools.subjects.vision import Preprocessing, VisionSubject
from dragoman.tools.subjects.vision_anatomy import find_layers, separate_buffers

LIBRARIES = ("torchvision", "timm")
_NAME = re.compile(rf"({'|'.join(LIBRARIES)}):([\w.-]+)(?:@(.+))?")
_NESTED = ("state_dict", "model", "state_dict_ema", "model_ema")
"""Keys under which training scripts keep the weights beside the optimiser's state."""
_PARALLEL = "module."
_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_RESAMPLING = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}


def is_vision(name: str) -> bool:
    """Whether `name` names a vision subject; no weights are read."""
    if name in VARIANTS or name.partition(":")[0] in LIBRARIES:
        return True
    folder = Path(name).expanduser()
    if not (folder / "config.json").is_file():
        return False
    config = read_configuration(folder)
    classes = config.get("architectures") or [""]
    if not isinstance(classes, list) or not str(classes[0]):
        family = config.get("model_type")
        return (
            family in MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES
            and family not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
        )
    return str(classes[0]).endswith("ForImageClassification")


def load_vision(name: str, weights_folder: Path) -> VisionSubject:
    """A vision subject; `UserError` says which forms a name may have.

    - `efficientnet-lite0`, `efficientnet-lite2`: from the packaged weights;
    - `torchvision:resnet18@weights.pth`, `timm:vit_small_patch16_224@model.safetensors`;
    - a folder that transformers' `save_pretrained` wrote of an image classifier.
    """
    if name in VARIANTS:
        return load_efficientnet(name, weights_folder)
    if found := _NAME.fullmatch(name):
        library, architecture, path = found.groups()
        if path is None:
            raise UserError(f"subject {name!r}: add its weights: {name}@/path/to/weights")
        return _from_library(library, architecture, Path(path).expanduser())
    if Path(name).expanduser().is_dir():
        return _from_folder(Path(name).expanduser())
    raise UserError(
        f"vision subject {name!r} is neither one of {', '.join(VARIANTS)} nor an existing folder "
        "nor of the form torchvision:NAME@WEIGHTS or timm:NAME@WEIGHTS"
    )


def make_vision(
    model: nn.Module, name: str, preprocessing: Preprocessing, labels: tuple[str, ...] = ()
) -> VisionSubject:
    """A subject around any image classifier; its layers are found by a forward pass."""
    model = separate_buffers(model.float().eval())
    layers = find_layers(model, preprocessing.size)
    with torch.no_grad():
        output: Any = model(torch.zeros(1, 3, *preprocessing.size))
    logits = getattr(output, "logits", output)
    if not isinstance(logits, Tensor) or logits.dim() != 2:
        raise UserError(f"{name}: gives no class logits, so it is no image classifier")
    n_classes = int(logits.shape[1])
    if not labels and n_classes == len(imagenet_labels()):
        labels = imagenet_labels()
    return VisionSubject(
        model,
        name,
        layers=layers,
        preprocessing=preprocessing,
        n_classes=n_classes,
        labels=labels if len(labels) == n_classes else (),
    )


def _from_library(library: str, architecture: str, path: Path) -> VisionSubject:
    try:
        module: Any = import_module("torchvision.models" if library == "torchvision" else library)
    # Built for another torch it fails in whatever way its compiled part does.
    except Exception as error:
        why = "not installed" if isinstance(error, ModuleNotFoundError) else str(error)
        raise UserError(
            f"subject {library}:{architecture} needs {library}, which cannot be imported here "
            f"({why}): python -m pip install {library}, of a release for torch "
            f"{torch.__version__.partition('+')[0]}"
        ) from error
    names = module.list_models()
    if architecture not in names:
        near = [each for each in names if each.startswith(architecture[:4])][:6]
        raise UserError(
            f"{library} has no image classifier {architecture!r}"
            + (f" (similar: {', '.join(near)})" if near else "")
        )
    state = _read_state(path)
    make = _torchvision if library == "torchvision" else _timm
    model, preprocessing = make(module, architecture, state)
    return make_vision(model, f"{library}:{architecture}@{path.name}", preprocessing)


def _torchvision(
    models: Any, architecture: str, state: Mapping[str, Tensor]
) -> tuple[nn.Module, Preprocessing]:
    def build(n_classes: int) -> nn.Module:
        extra = {"aux_logits": True} if any("aux" in key.lower() for key in state) else {}
        if architecture in {"googlenet", "inception_v3"}:
            extra |= {"init_weights": False}
            extra.setdefault("aux_logits", False)
        made: nn.Module = models.get_model(
            architecture, weights=None, num_classes=n_classes, **extra
        )
        return made

    published: Any = models.get_model_weights(architecture).DEFAULT.transforms()
    (size,) = published.crop_size
    (resize,) = published.resize_size
    return _filled(build, state), Preprocessing(
        size=(size, size),
        resize=resize,
        mean=tuple(published.mean),
        std=tuple(published.std),
        interpolation=published.interpolation.value,
    )


def _timm(
    timm: Any, architecture: str, state: Mapping[str, Tensor]
) -> tuple[nn.Module, Preprocessing]:
    def build(n_classes: int) -> nn.Module:
        made: nn.Module = timm.create_model(architecture, pretrained=False, num_classes=n_classes)
        return made

    model = _filled(build, state)
    published: Any = model.pretrained_cfg
    _, height, width = published["input_size"]
    fraction = published.get("crop_pct") or 0.875
    squeezed = published.get("crop_mode") == "squash"
    return model, Preprocessing(
        size=(height, width),
        resize=None if squeezed else int(min(height, width) / fraction),
        mean=tuple(published["mean"]),
        std=tuple(published["std"]),
        interpolation=published.get("interpolation", "bicubic"),
    )


def _filled(build: Any, state: Mapping[str, Tensor]) -> nn.Module:
    """The architecture with as many classes as the weights have, and the weights in it."""
    usual = len(imagenet_labels())
    model: nn.Module = build(usual)
    shapes = {key: tuple(weight.shape) for key, weight in model.state_dict().items()}
    for key, shape in shapes.items():
        given = tuple(state[key].shape) if key in state else shape
        if shape[:1] == (usual,) and given[:1] != shape[:1] and given[1:] == shape[1:]:
            model = build(given[0])
            break
    try:
        model.load_state_dict(state)
    except (RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()
        raise UserError(
            f"the weights do not fit this architecture: {(reason[1:] or reason)[0].strip()}"
        ) from error
    return model


def _read_state(path: Path) -> Mapping[str, Tensor]:
    if not path.is_file():
        raise UserError(f"weights {str(path)!r}: no such file")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    # The unpickler that refuses everything but tensors raises what it meets.
    except Exception as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(f"weights {str(path)!r} cannot be read: {reason[0]}") from error
    for key in _NESTED:
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not all(isinstance(each, Tensor) for each in state.values()):
        raise UserError(f"weights {str(path)!r}: holds no state dict")
    if not all(key.startswith(_PARALLEL) for key in state):
        return state  # with the versions that some modules note in it
    return {key.removeprefix(_PARALLEL): weight for key, weight in state.items()}


def _from_folder(folder: Path) -> VisionSubject:
    config = read_configuration(folder)
    model = load_weights(folder, AutoModelForImageClassification)
    names = model.config.id2label
    labels = tuple(str(names[index]) for index in sorted(names))
    # The library fills in names of its own where a model has none.
    known = () if labels == tuple(f"LABEL_{index}" for index in range(len(labels))) else labels
    return make_vision(model, folder.resolve().name, _folder_preprocessing(folder, config), known)


def _folder_preprocessing(folder: Path, config: Mapping[str, Any]) -> Preprocessing:
    """What preprocessor_config.json says; without one, ImageNet's usual constants."""
    side = config.get("image_size", 224)
    side = side[0] if isinstance(side, list) else side
    path = folder / "preprocessor_config.json"
    try:
        given = json.loads(path.read_text("utf-8")) if path.is_file() else {}
        resized, cropped = given.get("size", side), given.get("crop_size", side)
        crops = bool(given.get("do_center_crop", False)) or (
            isinstance(resized, dict) and "shortest_edge" in resized
        )
        size = _height_width(cropped if crops else resized)
        resize = None
        if crops:
            resize = min(_height_width(resized))
            if "crop_pct" in given and min(size) < 384:
                resize = int(resize / given["crop_pct"])
        normalises = given.get("do_normalize", True)
        return Preprocessing(
            size=size,
            resize=resize,
            mean=tuple(given.get("image_mean") or _IMAGENET_MEAN) if normalises else (0, 0, 0),
            std=tuple(given.get("image_std") or _IMAGENET_STD) if normalises else (1, 1, 1),
            interpolation=_RESAMPLING.get(given.get("resample", 2), "bilinear"),
        )
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{path}: cannot be understood: {error}") from error


def _height_width(size: Any) -> tuple[int, int]:
    if isinstance(size, dict):
        if "shortest_edge" in size:
            return (int(size["shortest_edge"]),) * 2
        return int(size["height"]), int(size["width"])
    if isinstance(size, list | tuple):
        return int(size[0]), int(size[1])
    return int(size), int(size)
