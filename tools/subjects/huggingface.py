"""Load causal LMs from a local folder or, where a hub can be reached, by id: safetensors only."""

import json
import re
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from dragoman.core.errors import UserError
from dragoman.core.settings import Settings
from dragoman.tools.quiet_loading import quieten
from dragoman.tools.subjects.gguf_files import PINNED, named_folder, pinned_folder
from dragoman.tools.subjects.language import LanguageSubject
from dragoman.tools.subjects.packaged import load_smollm2

DEFAULT_SUBJECT = "smollm2"
# Keys through which a configuration file has been able to name code to import or fetch.
_CODE_KEYS = frozenset({"auto_map", "custom_pipelines", "trust_remote_code"})
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def load_subject(name: str, settings: Settings) -> LanguageSubject:
    """`smollm2`, another pinned GGUF by name, a GGUF file, a model folder, or a hub id.

    `UserError` says which forms a name may have.
    """
    if name == DEFAULT_SUBJECT:
        return load_smollm2(settings.weights_folder)
    dtype = getattr(torch, settings.subject_dtype)
    if name in PINNED:
        quieten()
        return load_folder(pinned_folder(name, settings.weights_folder), name=name, dtype=dtype)
    folder = Path(name).expanduser()
    if folder.is_dir():
        return load_folder(folder, dtype=dtype)
    if folder.suffix == ".gguf":
        quieten()
        converted = named_folder(folder, settings.cache_folder)
        return load_folder(converted, name=folder.stem, dtype=dtype)
    if folder.exists():
        raise UserError(
            f"subject {name!r} is a file; name a .gguf file, or the folder that holds config.json"
        )
    if _HUB_ID.fullmatch(name) and not name.startswith((".", "/")):
        return load_folder(_fetch(name), name=name, dtype=dtype)
    raise UserError(
        f"subject {name!r} is neither {' nor '.join(map(repr, (DEFAULT_SUBJECT, *PINNED)))} nor "
        "an existing folder or .gguf file nor a hub id of the form owner/name"
    )


def load_folder(
    folder: Path, *, name: str | None = None, dtype: torch.dtype = torch.float32
) -> LanguageSubject:
    """A causal LM saved with `save_pretrained`; nothing in the folder is ever executed."""
    family = read_configuration(folder).get("model_type")
    if family not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise UserError(
            f"{folder / 'config.json'}: model_type {family!r} is no causal language model known "
            "here"
        )
    model = load_weights(folder, AutoModelForCausalLM, dtype, attn_implementation="sdpa")
    try:
        # AutoTokenizer rebuilds a family's usual tokenizer whatever tokenizer.json says.
        exact = (folder / "tokenizer.json").is_file()
        tokenizer = (PreTrainedTokenizerFast if exact else AutoTokenizer).from_pretrained(
            folder, trust_remote_code=False, local_files_only=True
        )
    # What a damaged or foreign folder raises inside the library has no common base class.
    except Exception as error:
        raise _unloadable(folder, error) from error
    return LanguageSubject(model, tokenizer, name or folder.resolve().name)


def load_weights(
    folder: Path, auto_class: Any, dtype: torch.dtype = torch.float32, **options: Any
) -> Any:
    """The network of a folder with safetensors; nothing in the folder is executed."""
    quieten()
    if not list(folder.glob("*.safetensors")):
        raise UserError(f"{folder}: no *.safetensors file (other weight formats are not read)")
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
        loaded: Any = auto_class.from_pretrained(
            folder,
            config=config,
            dtype=dtype,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
            **options,
        )
    # What a damaged or foreign folder raises inside the library has no common base class.
    except Exception as error:
        raise _unloadable(folder, error) from error
    model, loading = loaded
    if missing := sorted(loading["missing_keys"]):
        # The library would fill them with random numbers and call that the model.
        raise UserError(
            f"{folder}: the weight files lack {len(missing)} tensors, first {missing[0]!r}"
        )
    return model


def random_twin(subject: LanguageSubject, seed: int) -> LanguageSubject:
    """The same architecture and tokenizer with freshly drawn weights: a control, not a model."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = type(subject.model.config)(**subject.model.config.to_dict())
        model = type(subject.model)(config).to(torch.float32)
    return LanguageSubject(
        model, subject.tokenizer, f"{subject.identity.name} with random weights (seed {seed})"
    )


def read_configuration(folder: Path) -> dict[str, Any]:
    """A model folder's config.json; `UserError` if there is none or it could name code to run."""
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise UserError(f"{folder}: no config.json, so this folder is no model") from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from None
    if not isinstance(config, dict):
        raise UserError(f"{path}: must hold a JSON object")
    if bad := sorted(_forbidden_keys(config)):
        raise UserError(f"{path}: refused, since {', '.join(bad)} could make it run foreign code")
    return config


def _unloadable(folder: Path, error: Exception) -> UserError:
    reason = str(error).strip().splitlines() or [type(error).__name__]
    return UserError(f"{folder}: this model cannot be loaded: {reason[0]}")


def _forbidden_keys(value: Any) -> set[str]:
    if isinstance(value, dict):
        here = {key for key in value if key in _CODE_KEYS or key.endswith("_internal")}
        return here.union(*(_forbidden_keys(item) for item in value.values()))
    if isinstance(value, list):
        return set[str]().union(*(_forbidden_keys(item) for item in value))
    return set()


def _fetch(hub_id: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(
            snapshot_download(
                hub_id, allow_patterns=["*.safetensors", "*.json", "tokenizer.model", "*.txt"]
            )
        )
    # Network, authorisation and naming faults share no base class.
    except Exception as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(
            f"subject {hub_id!r} is no local folder, and the model hub did not give it: {reason[0]}"
        ) from error
