"""Options that commands on units share: one meaning and one wording for all of them."""

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

SubjectArgument: TypeAlias = Annotated[
    str, typer.Argument(metavar="SUBJECT", help="A known subject, a model folder or a hub id.")
]
DictionaryOption: TypeAlias = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="A sparse autoencoder as safetensors: its latents."),
]
SeedOption: TypeAlias = Annotated[int, typer.Option(min=0, help="Seed of everything random.")]
