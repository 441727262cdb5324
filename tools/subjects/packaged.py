"""The default subject: SmolLM2-135M-Instruct from its pinned GGUF file.

GGUF is read for this one file alone, whose sha256 is pinned: its readers have had memory bugs.
The first load dequantises to float32 safetensors, exactly; later loads read those.
"""

import json
import tempfile
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from dragoman.core.errors import IntegrityError, UserError
from dragoman.core.files import file_sha256
from dragoman.tools.quiet_loading import quieten
from dragoman.tools.subjects.language import LanguageSubject

FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
_CONVERTED = "float32"


def load_smollm2(weights_folder: Path) -> LanguageSubject:
    """SmolLM2-135M-Instruct in float32: 30 layers, d_model 576, d_mlp 1536."""
    quieten()
    folder = weights_folder / "smollm2"
    converted = folder / _CONVERTED
    if not (converted / "complete.json").is_file():
        _convert(folder / FILE, converted)
    try:
        model = AutoModelForCausalLM.from_pretrained(
            converted,
            dtype=torch.float32,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            attn_implementation="sdpa",
        )
        tokenizer = AutoTokenizer.from_pretrained(
            converted, trust_remote_code=False, local_files_only=True
        )
    # A damaged file raises whatever its parser raises.
    except Exception as error:
        raise IntegrityError(
            f"{converted}: damaged ({type(error).__name__}); delete this folder and run again"
        ) from error
    return LanguageSubject(model, tokenizer, "smollm2")


def _convert(gguf: Path, target: Path) -> None:
    if not gguf.is_file():
        raise UserError(
            "the weights of subject 'smollm2' are not here; get them with "
            "`dragoman weights pull smollm2`"
        )
    if file_sha256(gguf) != SHA256:
        raise IntegrityError(
            f"{gguf}: not the published file; delete it and run `dragoman weights pull smollm2`"
        )
    source = {"gguf_file": gguf.name, "local_files_only": True, "trust_remote_code": False}
    # The library's bar for this step listens to no setting; its faults are raised all the same.
    with redirect_stderr(StringIO()):
        loaded = AutoModelForCausalLM.from_pretrained(gguf.parent, dtype=torch.float32, **source)
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, **source)
    # A model that still carries its quantisation config refuses to be saved.
    options = loaded.config.to_dict()
    options.pop("quantization_config", None)
    model: Any = LlamaForCausalLM(LlamaConfig(**options))
    model.load_state_dict(loaded.state_dict())
    model.tie_weights()
    with tempfile.TemporaryDirectory(dir=gguf.parent, prefix=".converting.") as scratch:
        model.save_pretrained(scratch)
        tokenizer.save_pretrained(scratch)
        (Path(scratch) / "complete.json").write_text(json.dumps({"source_sha256": SHA256}))
        staged = Path(scratch)
        target.mkdir(exist_ok=True)
        # The marker moves last: a folder without it is converted again.
        for path in sorted(staged.iterdir(), key=lambda path: path.name == "complete.json"):
            path.replace(target / path.name)
