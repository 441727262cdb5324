"""Open a vision subject by name."""

from pathlib import Path

from dragoman.core.errors import UserError
from dragoman.tools.subjects.efficientnet import VARIANTS, load_efficientnet
from dragoman.tools.subjects.vision import VisionSubject


def is_vision(name: str) -> bool:
    """Whether `name` names a vision subject; nothing is loaded."""
    return name in VARIANTS


def load_vision(name: str, weights_folder: Path) -> VisionSubject:
    """A vision subject; `UserError` names the known ones."""
    if name in VARIANTS:
        return load_efficientnet(name, weights_folder)
    raise UserError(f"vision subject {name!r} is unknown (known: {', '.join(VARIANTS)})")
