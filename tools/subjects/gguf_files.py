"""Language subjects from GGUF files: pinned ones by name, others by a path that the person names.

GGUF readers have had memory bugs, so nothing else than these is ever opened. The first load
dequantises to float32 safetensors, exactly; later loads read those. Shards bound the memory:
besides the model itself at most one of them is in it twice.
"""

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from dragoman.core.errors import UserError
from dragoman.core.files import file_sha256
from dragoman.tools.weights import CHAT, find_weights, require

PINNED = (CHAT,)
"""Names of `tools/weights.py` that are GGUF files and may be examined as subjects."""

_SHARD_BYTES = 2**30
_COMPLETE = "complete.json"
# Describes how the file was stored; a model that still carries it refuses to be loaded plainly.
_STORED = ("quantization_config", "dtype", "torch_dtype")


def pinned_folder(name: str, weights_folder: Path) -> Path:
    """The float32 folder of a pinned GGUF, made on the first call.

    `UserError` when the file is not here, `IntegrityError` when it is not the published one.
    """
    folder = require(name, weights_folder)
    (file,) = find_weights(name).files
    return _converted(folder / file.name, folder / "float32", file.sha256)


def named_folder(path: Path, cache: Path) -> Path:
    """The float32 folder of a GGUF file that the person named, kept in the cache by its content."""
    if not path.is_file():
        raise UserError(f"{path}: no such GGUF file")
    digest = file_sha256(path)
    return _converted(path, cache / "gguf" / digest[:16], digest)


def _converted(gguf: Path, target: Path, digest: str) -> Path:
    marker = target / _COMPLETE
    if not marker.is_file() or json.loads(marker.read_text()) != {"source_sha256": digest}:
        _convert(gguf, target, digest)
    return target


def _convert(gguf: Path, target: Path, digest: str) -> None:
    source: dict[str, Any] = {
        "gguf_file": gguf.name,
        "local_files_only": True,
        "trust_remote_code": False,
    }
    try:
        # The library's bar for this step listens to no setting; its faults are raised all the same.
        with redirect_stderr(StringIO()):
            model = AutoModelForCausalLM.from_pretrained(gguf.parent, dtype=torch.float32, **source)
            tokenizer = AutoTokenizer.from_pretrained(gguf.parent, **source)
    # What a damaged or unknown file raises inside the readers has no common base class.
    except Exception as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(f"{gguf}: this GGUF file cannot be read: {reason[0]}") from error
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".converting.") as scratch:
        staged = Path(scratch)
        config = {key: value for key, value in model.config.to_dict().items() if key not in _STORED}
        (staged / "config.json").write_text(json.dumps(config, indent=1))
        tokenizer.save_pretrained(staged)
        _save_weights(model.state_dict(), staged)
        (staged / _COMPLETE).write_text(json.dumps({"source_sha256": digest}))
        target.mkdir(exist_ok=True)
        # The marker moves last: a folder without it is converted again.
        for path in sorted(staged.iterdir(), key=lambda path: path.name == _COMPLETE):
            path.replace(target / path.name)


def _save_weights(weights: Mapping[str, Tensor], folder: Path) -> None:
    shards = list(_shards(weights))
    index: dict[str, str] = {}
    for place, shard in enumerate(shards, start=1):
        name = f"model-{place:05d}-of-{len(shards):05d}.safetensors"
        save_file(
            {key: weight.contiguous() for key, weight in shard.items()},
            folder / name,
            metadata={"format": "pt"},
        )
        index |= dict.fromkeys(shard, name)
    total = sum(weight.nbytes for shard in shards for weight in shard.values())
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {"total_size": total}, "weight_map": index})
    )


def _shards(weights: Mapping[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    """Runs of weights of about `_SHARD_BYTES`; of weights that are tied the first alone."""
    shard: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, weight in weights.items():
        if weight.data_ptr() in seen:
            continue
        seen.add(weight.data_ptr())
        if shard and sum(each.nbytes for each in shard.values()) + weight.nbytes > _SHARD_BYTES:
            yield shard
            shard = {}
        shard[name] = weight
    if shard:
        yield shard
