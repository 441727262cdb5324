"""Sentence embeddings by all-MiniLM-L6-v2 (Reimers & Gurevych 2019, arXiv:1908.10084).

Mean of the last layer's token vectors, scaled to length one, as the model was trained to be read.
"""

from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from dragoman.core.errors import UserError

_FILES = ("config.json", "model.safetensors", "tokenizer.json")
_MOST_TOKENS = 256
_BATCH = 32


class Embedder:
    """Texts to unit vectors; the weights are read on the first call."""

    def __init__(self, folder: Path) -> None:
        """`UserError` where the folder lacks a file of the model."""
        missing = [name for name in _FILES if not (folder / name).is_file()]
        if missing:
            raise UserError(
                f"{folder} lacks {', '.join(missing)}: `dragoman weights pull minilm` brings it"
            )
        self._folder = folder

    def __call__(self, texts: list[str]) -> list[list[float]]:
        """One vector of length one a text; text past 256 tokens is not read."""
        vectors: list[list[float]] = []
        for start in range(0, len(texts), _BATCH):
            vectors += self._embedded(texts[start : start + _BATCH]).tolist()
        return vectors

    @torch.inference_mode()
    def _embedded(self, texts: list[str]) -> Float[Tensor, "batch d_model"]:
        encoded = self._tokenizer.encode_batch(texts)
        ids = torch.tensor([one.ids for one in encoded])
        mask = torch.tensor([one.attention_mask for one in encoded])
        states: Float[Tensor, "batch pos d_model"] = self._model(
            input_ids=ids, attention_mask=mask
        ).last_hidden_state
        weights = mask.unsqueeze(-1).to(states.dtype)
        mean = (states * weights).sum(1) / weights.sum(1)
        return torch.nn.functional.normalize(mean, dim=-1)

    @cached_property
    def _tokenizer(self) -> Any:
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(self._folder / "tokenizer.json"))
        tokenizer.enable_truncation(_MOST_TOKENS)
        tokenizer.enable_padding()
        return tokenizer

    @cached_property
    def _model(self) -> Any:
        from safetensors import SafetensorError
        from transformers import BertModel

        from dragoman.tools.quiet_loading import quieten

        quieten()
        try:
            model: Any = BertModel.from_pretrained(
                self._folder,
                use_safetensors=True,
                local_files_only=True,
                add_pooling_layer=False,
                dtype=torch.float32,
            )
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            raise UserError(
                f"{self._folder} cannot be read ({type(error).__name__}); "
                "`dragoman weights pull minilm` brings it anew"
            ) from error
        return model.eval()
