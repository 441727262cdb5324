"""Sparse dictionaries (autoencoders) given as safetensors: their latents are units.

Cunningham et al. 2023, arXiv:2309.08600; top-k after Gao et al. 2024, arXiv:2406.04093; JumpReLU
after Rajamanoharan et al. 2024, arXiv:2407.14435. The spellings of SAELens, sparsify,
dictionary_learning and OpenAI's release are understood.
"""

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from torch import Tensor

from dragoman.core.errors import UserError
from dragoman.core.files import file_sha256
from dragoman.core.records import Site, content_id

Nonlinearity: TypeAlias = Literal["relu", "topk", "jumprelu"]

# Each tensor's names, and for matrices whether the file holds them as [d_in latents].
_ENCODER = {"W_enc": True, "encoder.weight": False}
_DECODER = {"W_dec": False, "decoder.weight": True}
_ENCODER_BIAS = ("b_enc", "encoder.bias", "latent_bias")
_DECODER_BIAS = ("b_dec", "decoder.bias", "pre_bias", "bias")
_THRESHOLD = ("threshold", "log_threshold", "jump_threshold")
_K = ("k", "top_k", "activation_k")
_SETTINGS = ("cfg.json", "config.json")
_LAYERS_OF_SETTINGS = ("trainer", "activation_fn_kwargs", "sae", "sae_cfg")


@dataclass(frozen=True)
class SparseDictionary:
    """Latents that read one site of a subject. All tensors float32."""

    site: Site
    encoder: Float[Tensor, "d_in latents"]
    encoder_bias: Float[Tensor, " latents"]
    decoder: Float[Tensor, "latents d_in"]
    decoder_bias: Float[Tensor, " d_in"]
    nonlinearity: Nonlinearity
    centred: bool
    """The decoder's bias is subtracted before encoding."""
    k: int | None
    """Of top-k: how many latents are active at a position."""
    threshold: Float[Tensor, " latents"] | None
    """Of JumpReLU: at or below it a latent is silent."""
    digest: str
    """Of the file's bytes and of how they are read."""

    @property
    def d_in(self) -> int:
        """Width of what is read."""
        return self.encoder.shape[0]

    @property
    def n_latents(self) -> int:
        """Number of latents."""
        return self.encoder.shape[1]

    def encode(self, activations: Float[Tensor, "*rows d_in"]) -> Float[Tensor, "*rows latents"]:
        """How active each latent is."""
        read = activations.float()
        if self.centred:
            read = read - self.decoder_bias
        before = read @ self.encoder + self.encoder_bias
        match self.nonlinearity:
            case "relu":
                return before.relu_()
            case "jumprelu":
                assert self.threshold is not None
                return before.relu() * (before > self.threshold)
            case "topk":
                assert self.k is not None
                best = before.relu_().topk(self.k, dim=-1)
                return torch.zeros_like(before).scatter_(-1, best.indices, best.values)

    def decode(self, latents: Float[Tensor, "*rows latents"]) -> Float[Tensor, "*rows d_in"]:
        """What the latents write together."""
        return latents @ self.decoder + self.decoder_bias


def load_dictionary(
    path: Path,
    site: Site,
    *,
    nonlinearity: Nonlinearity | None = None,
    k: int | None = None,
    centred: bool | None = None,
) -> SparseDictionary:
    """The dictionary in the safetensors file `path`, which reads `site`.

    What is not said here is taken from the file's metadata and from a `cfg.json` or `config.json`
    beside it, else from what the file holds: a threshold means JumpReLU. Without word about it, the
    decoder's bias is subtracted before encoding except under JumpReLU, as the published ones do.
    `UserError` names the file and what is wrong with it.
    """
    tensors, metadata = _read(path)
    settings = _settings(path, metadata)
    if settings.get("normalize_activations") not in {None, False, "none"}:
        raise UserError(f"{path}: it normalises what it reads; fold the factor into its weights")
    encoder = _matrix(path, tensors, _ENCODER, wanted_inward=True)
    decoder = _matrix(path, tensors, _DECODER, wanted_inward=False)
    d_in, n_latents = encoder.shape
    if decoder.shape != (n_latents, d_in):
        raise UserError(
            f"{path}: the encoder maps {d_in} to {n_latents}, so the decoder must map {n_latents} "
            f"to {d_in}, and it maps {decoder.shape[0]} to {decoder.shape[1]}"
        )
    threshold = _threshold(path, tensors, n_latents)
    k = k if k is not None else _first_int(settings, _K)
    chosen = nonlinearity or _nonlinearity(path, settings, threshold, k)
    if chosen == "topk" and (k is None or not 1 <= k <= n_latents):
        raise UserError(f"{path}: top-k needs k within 1..{n_latents}, and k is {k}")
    if chosen == "jumprelu" and threshold is None:
        raise UserError(f"{path}: JumpReLU needs a tensor 'threshold' of {n_latents} numbers")
    if centred is None:
        said = settings.get("apply_b_dec_to_input")
        centred = said if isinstance(said, bool) else chosen != "jumprelu"
    return SparseDictionary(
        site=site,
        encoder=encoder,
        encoder_bias=_vector(path, tensors, _ENCODER_BIAS, n_latents),
        decoder=decoder,
        decoder_bias=_vector(path, tensors, _DECODER_BIAS, d_in),
        nonlinearity=chosen,
        centred=centred,
        k=k if chosen == "topk" else None,
        threshold=threshold if chosen == "jumprelu" else None,
        digest=content_id([file_sha256(path), site.model_dump(mode="json"), chosen, k, centred]),
    )


def _read(path: Path) -> tuple[dict[str, Tensor], Mapping[str, str]]:
    try:
        with safe_open(path, framework="pt") as opened:
            names = opened.keys()
            return {name: opened.get_tensor(name) for name in names}, opened.metadata() or {}
    except (OSError, SafetensorError, struct.error) as error:
        raise UserError(f"{path}: cannot be read as safetensors ({error})") from None


def _settings(path: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in reversed(_SETTINGS):
        beside = path.with_name(name)
        if beside.is_file():
            try:
                read = json.loads(beside.read_text("utf-8"))
            except (OSError, ValueError) as error:
                raise UserError(f"{beside}: cannot be read as JSON ({error})") from None
            found |= read if isinstance(read, dict) else {}
    for name, text in metadata.items():
        try:
            found[name] = json.loads(text)
        except ValueError:
            found[name] = text
    for name in _LAYERS_OF_SETTINGS:
        if isinstance(nested := found.get(name), dict):
            found = nested | found
    return found


def _first_int(settings: Mapping[str, Any], names: tuple[str, ...]) -> int | None:
    values = (settings.get(name) for name in names)
    return next((each for each in values if type(each) is int), None)


def _nonlinearity(
    path: Path, settings: Mapping[str, Any], threshold: Tensor | None, k: int | None
) -> Nonlinearity:
    for name in ("architecture", "activation_fn", "activation_fn_str", "activation", "dict_class"):
        said = str(settings.get(name, "")).lower().replace("-", "").replace("_", "")
        if "gated" in said:
            raise UserError(
                f"{path}: gated dictionaries are not understood, only relu, topk, jumprelu"
            )
        if "batchtopk" in said:
            # Trained by the batch, used with the threshold that training left.
            return "jumprelu" if threshold is not None else "topk"
        if "jump" in said:
            return "jumprelu"
        if "topk" in said:
            return "topk"
    if threshold is not None:
        return "jumprelu"
    return "relu" if k is None else "topk"


def _matrix(
    path: Path, tensors: Mapping[str, Tensor], names: Mapping[str, bool], *, wanted_inward: bool
) -> Tensor:
    for name, inward in names.items():
        if name in tensors:
            matrix = tensors[name].float()
            if matrix.dim() != 2:
                raise UserError(
                    f"{path}: {name} has the shape {tuple(matrix.shape)}, not that of a matrix"
                )
            return (matrix if inward == wanted_inward else matrix.T).contiguous()
    raise UserError(
        f"{path}: no {' or '.join(names)}; it holds {', '.join(sorted(tensors)) or 'nothing'}"
    )


def _vector(
    path: Path, tensors: Mapping[str, Tensor], names: tuple[str, ...], length: int
) -> Tensor:
    for name in names:
        if name in tensors:
            vector = tensors[name].float()
            if vector.shape != (length,):
                raise UserError(
                    f"{path}: {name} has the shape {tuple(vector.shape)}, and should have "
                    f"({length},)"
                )
            return vector
    return torch.zeros(length)


def _threshold(path: Path, tensors: Mapping[str, Tensor], n_latents: int) -> Tensor | None:
    for name in _THRESHOLD:
        if name in tensors:
            threshold = tensors[name].float()
            if threshold.dim() == 0:
                threshold = threshold.expand(n_latents).clone()
            if threshold.shape != (n_latents,):
                raise UserError(
                    f"{path}: {name} has the shape {tuple(threshold.shape)}, and should have "
                    f"({n_latents},)"
                )
            return threshold.exp() if name.startswith("log_") else threshold
    return None
