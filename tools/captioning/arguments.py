"""Arguments that tools on units share: one meaning and one wording for all of them."""

from pathlib import Path
from typing import Annotated, TypeAlias

from pydantic import Field

from dragoman.core.errors import ToolError, UserError
from dragoman.tools.captioning.dictionaries import SparseDictionary, load_dictionary
from dragoman.tools.captioning.units import UnitKind, UnitLayer

KindArgument: TypeAlias = Annotated[
    UnitKind,
    Field(
        description="mlp: MLP neurons; resid: components of the residual stream; head: "
        "attention heads' outputs; latent: latents of the sparse autoencoder `dictionary`."
    ),
]
CorpusArgument: TypeAlias = Annotated[
    str | None,
    Field(description="A file or folder of texts; without it the subject writes its own."),
]
DictionaryArgument: TypeAlias = Annotated[
    str | None,
    Field(
        description="The autoencoder's safetensors file; it reads what a cfg.json beside it "
        "names, else the layer's output."
    ),
]
ImagesArgument: TypeAlias = Annotated[
    str | None,
    Field(description="For a vision subject: a folder of images; without it the probe set."),
]
CaptionerArgument: TypeAlias = Annotated[
    str | None,
    Field(
        max_length=400,
        description="For a vision subject: a folder with a local image-to-text model that "
        "describes exemplars and so proposes captions as well.",
    ),
]


def latents_of(where: UnitLayer, path: str | None) -> SparseDictionary | None:
    """The autoencoder of a person who asks for latents, None for other units; else `ToolError`."""
    if where.kind != "latent":
        if path is not None:
            raise ToolError(f"dictionary: only latents have one, and kind is {where.kind!r}")
        return None
    if path is None:
        raise ToolError("dictionary: latents need the safetensors file of their autoencoder")
    try:
        return load_dictionary(Path(path).expanduser(), where.layer)
    except UserError as error:
        raise ToolError(f"dictionary: {error}") from None


def only_texts(images: str | None, captioner: str | None = None) -> None:
    """`ToolError` where images, or who describes them, were named for a language subject."""
    if images is not None:
        raise ToolError("images: a language subject reads texts; leave images out, or name corpus")
    if captioner is not None:
        raise ToolError("captioner: it describes images, and a language subject reads texts")
