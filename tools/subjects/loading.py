"""Open a subject of either kind by name."""

from dragoman.core.settings import Settings
from dragoman.tools.subjects.huggingface import load_subject
from dragoman.tools.subjects.language import LanguageSubject
from dragoman.tools.subjects.vision import VisionSubject
from dragoman.tools.subjects.vision_loading import is_vision, load_vision


def load_network(name: str, settings: Settings) -> LanguageSubject | VisionSubject:
    """A known subject, a model folder, a hub id, or weights of a vision library.

    `UserError` says which forms a name may have.
    """
    if is_vision(name):
        return load_vision(name, settings.weights_folder)
    return load_subject(name, settings)
