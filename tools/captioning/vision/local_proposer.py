"""Captions from an image-to-text model in a local folder, shown masked crops of exemplars.

Any captioner that transformers reads and that takes nothing but pixels: BLIP, GIT and pairs of an
encoder and a decoder (MILAN's own captioner was of that last form). It describes each exemplar by
itself; what several descriptions of a unit name is proposed as its caption, and ranked and scored
like any other.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import (
    AutoImageProcessor,
    AutoModelForImageTextToText,
    AutoTokenizer,
    PreTrainedTokenizerFast,
)

from dragoman.core.errors import ToolError, UserError
from dragoman.core.escaping import visible
from dragoman.core.files import write_atomic
from dragoman.core.records import content_id
from dragoman.tools.captioning.vision.bench import VisionBench, shown_exemplars
from dragoman.tools.captioning.vision.describing import Proposer, Suggestions
from dragoman.tools.captioning.vision.pictures import masked_crops
from dragoman.tools.captioning.vision.reading import named_in
from dragoman.tools.context import ToolContext
from dragoman.tools.subjects.huggingface import load_weights, read_configuration
from dragoman.tools.subjects.identity import weights_digest

FAMILIES = ("blip", "git", "vision-encoder-decoder")
SHOWN = 6
"""Exemplars of a unit that are described, strongest first."""
_MOST_TOKENS, _MOST_CHARACTERS = 24, 200
_LEAST_DESCRIPTIONS = 2
"""What a single description names may be chance."""
_PROPOSED = 4


def local_proposers(folder: str | None) -> list[Proposer]:
    """The model in `folder`, if one is named; `ToolError` says what is wrong with it."""
    if folder is None:
        return []
    try:
        return [ImageToText(Path(folder).expanduser())]
    except UserError as error:
        raise ToolError(f"captioner: {error}") from None


class ImageToText:
    """Describes masked crops; descriptions are cached by the picture's content."""

    def __init__(self, folder: Path) -> None:
        """`UserError` where the folder holds no image captioner; nothing in it is executed."""
        family = read_configuration(folder).get("model_type")
        if family not in FAMILIES:
            raise UserError(
                f"{folder / 'config.json'}: model_type {str(family)!r} describes no images; "
                f"captioners are of the families {', '.join(FAMILIES)}"
            )
        self._model = load_weights(folder, AutoModelForImageTextToText).eval()
        exact = (folder / "tokenizer.json").is_file()
        try:
            self._tokenizer: Any = (
                PreTrainedTokenizerFast if exact else AutoTokenizer
            ).from_pretrained(folder, trust_remote_code=False, local_files_only=True)
            processor: Any = AutoImageProcessor
            self._processor: Any = processor.from_pretrained(
                folder, trust_remote_code=False, local_files_only=True
            )
        # What a damaged or foreign folder raises inside the library has no common base class.
        except Exception as error:
            reason = str(error).strip().splitlines() or [type(error).__name__]
            raise UserError(f"{folder}: this captioner cannot be loaded: {reason[0]}") from error
        self._digest = weights_digest(self._model, {"family": str(family)})
        self._name = f"{folder.resolve().name} {self._digest[:8]}"

    @property
    def name(self) -> str:
        """The folder's name, and what its weights are."""
        return self._name

    def suggest(
        self, context: ToolContext, bench: VisionBench, units: Sequence[int]
    ) -> Suggestions:
        """What at least two of a unit's exemplars are said to show, most often named first."""
        exemplars, images = shown_exemplars(context, bench.images, [bench.layer])
        captions: list[tuple[str, ...]] = []
        n_calls = n_cached = n_failed = 0
        for number, unit in enumerate(units):
            context.step(number, len(units), f"showing exemplars to {self.name}")
            crops = masked_crops(
                context.vision, images, exemplars, bench.layer, bench.units[unit], SHOWN
            )
            texts, n_new = self.describe(crops, context.cache)
            n_calls += n_new
            n_cached += len(crops) - n_new
            named = [named_in(text) for text in texts]
            n_failed += sum(not each for each in named)
            counts = Counter(name for names in named for name in dict.fromkeys(names))
            captions.append(
                tuple(name for name, n in counts.most_common(_PROPOSED) if n >= _LEAST_DESCRIPTIONS)
            )
        return Suggestions(captions, n_calls, n_cached, n_failed)

    def describe(self, images: Sequence[Image.Image], cache: Path) -> tuple[list[str], int]:
        """A description of each image, escaped and cut, and how many of them are new."""
        paths = [cache / "image_captions" / f"{self._key(image)}.txt" for image in images]
        known = [_kept(path) for path in paths]
        new = [row for row, text in enumerate(known) if text is None]
        if new:
            for row, text in zip(new, self._written([images[row] for row in new]), strict=True):
                write_atomic(paths[row], text)
                known[row] = text
        return [text or "" for text in known], len(new)

    def _key(self, image: Image.Image) -> str:
        pixels = hashlib.sha256(image.tobytes()).hexdigest()
        return content_id([self._digest, list(image.size), pixels])

    @torch.no_grad()
    def _written(self, images: Sequence[Image.Image]) -> list[str]:
        pixels = self._processor(images=list(images), return_tensors="pt")["pixel_values"]
        ids = self._model.generate(
            pixel_values=pixels, max_new_tokens=_MOST_TOKENS, do_sample=False, num_beams=1
        )
        texts = self._tokenizer.batch_decode(ids, skip_special_tokens=True)
        # Whatever a foreign model writes is data.
        return [visible(text.strip()[:_MOST_CHARACTERS], one_line=True) for text in texts]


def _kept(path: Path) -> str | None:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        return None
