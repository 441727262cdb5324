"""Who a subject is: a digest of its weights, configuration and vocabulary."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dragoman.core.records import SubjectIdentity, canonical_json

# Keys that say how or when a checkpoint was written, not what it computes.
_INCIDENTAL = frozenset(
    {
        "_name_or_path",
        "transformers_version",
        "torch_dtype",
        "dtype",
        "architectures",
        "use_cache",
        "quantization_config",
    }
)


def identify(model: Any, tokenizer: Any, name: str, d_mlp: int) -> SubjectIdentity:
    """Sizes, and sha256 over every weight's name, type, shape and bytes, config and tokenizer."""
    config = {key: value for key, value in model.config.to_dict().items() if key not in _INCIDENTAL}
    digest = hashlib.sha256(canonical_json(_plain(config)).encode())
    digest.update(tokenizer.backend_tokenizer.to_str().encode())
    _add_weights(digest, sorted(model.named_parameters()))
    return SubjectIdentity(
        name=name,
        digest=digest.hexdigest(),
        architecture=str(model.config.model_type),
        n_layers=int(model.config.num_hidden_layers),
        d_model=int(model.config.hidden_size),
        d_mlp=d_mlp,
        d_vocab=int(model.get_output_embeddings().weight.shape[0]),
        n_parameters=sum(weight.numel() for weight in model.parameters()),
    )


def weights_digest(model: nn.Module, description: Mapping[str, Any]) -> str:
    """sha256 (hex) over a description and every weight and buffer, running statistics included."""
    digest = hashlib.sha256(canonical_json(_plain(description)).encode())
    _add_weights(digest, sorted(model.state_dict().items()))
    return digest.hexdigest()


def _add_weights(digest: Any, weights: Sequence[tuple[str, Tensor]]) -> None:
    for key, weight in weights:
        digest.update(f"{key} {weight.dtype} {tuple(weight.shape)}".encode())
        # Any dtype as raw bytes: numpy has no bfloat16.
        flat = weight.detach().contiguous().cpu().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy())


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if isinstance(value, str | int | float | bool | None) else str(value)
