"""Sparse dictionaries (autoencoders) given as safetensors: their latents are units.

Cunningham et al. 2023, arXiv:2309.08600; top-k after Gao et al. 2024, arXiv:2406.04093; JumpReLU
after Rajamanoharan et al. 2024, arXiv:2407.14435. The spellings of SAELens, sparsify,
dictionary_learning and OpenAI's release are understood.
"""

import json
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from torch import Tensor

from dragoman.core.errors import UserError
from dragoman.core.files import file_sha256
from dragoman.core.records import Site, SiteKind, content_id

Nonlinearity: TypeAlias = Literal["relu", "topk", "jumprelu"]

# Each tensor's names, and for matrices whether the file holds them as [d_in latents].
_ENCODER = {"W_enc": True, "encoder.weight": False}
_DECODER = {"W_dec": False, "decoder.weight": True}
_ENCODER_BIAS = ("b_enc", "encoder.bias", "latent_bias")
_DECODER_BIAS = ("b_dec", "decoder.bias", "pre_bias", "bias")
_THRESHOLD = ("threshold", "log_threshold", "jump_threshold")
_K = ("k", "top_k", "activation_k")
_SETTINGS = ("cfg.json", "config.json")
_LAYERS_OF_SETTINGS = ("trainer", "activation_fn_kwargs", "sae", "sae_cfg", "metadata")
_PLACES = ("hook_name", "hook_point", "hookpoint", "submodule_name")
_PLACE = re.compile(
    r"""
    blocks\.(?P<hooked>\d+)\.(?:mlp\.|attn\.)?hook_(?P<hook>\w+)
    | (?:\w+\.)*layers\.(?P<module_of>\d+)(?:\.(?P<module>mlp|self_attn))?
    | (?P<tapped>resid_post|mlp_out|attn_out|attention_out)_layer_(?P<tapped_at>\d+)
    """,
    re.VERBOSE,
)
"""TransformerLens' hooks, transformers' modules, and names of dictionary_learning."""
_SITES: Mapping[str, SiteKind] = {
    "resid_pre": "resid_pre",
    "resid_mid": "resid_mid",
    "resid_post": "resid_post",
    "attn_out": "attn_out",
    "attention_out": "attn_out",
    "self_attn": "attn_out",
    "z": "attn_z",
    "mlp_out": "mlp_out",
    "mlp": "mlp_out",
    "post": "mlp_act",
}


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
    def short_digest(self) -> str:
        """What tells its latents from another's in stored captions."""
        return self.digest[:12]

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
    layer: int,
    *,
    nonlinearity: Nonlinearity | None = None,
    k: int | None = None,
    centred: bool | None = None,
) -> SparseDictionary:
    """The dictionary in the safetensors file `path`, which reads a site of `layer`.

    The site is the one that its settings name, else the layer's output (`resid_post`).
    What is not said here is taken from the file's metadata and from a `cfg.json` or `config.json`
    beside it, else from what the file holds: a threshold means JumpReLU. Without word about it, the
    decoder's bias is subtracted before encoding except under JumpReLU, as the published ones do.
    `UserError` names the file and what is wrong with it.
    """
    tensors, metadata = _read(path)
    settings = _settings(path, metadata)
    if settings.get("normalize_activations") not in {None, False, "none"}:
        raise UserError(f"{path}: it normalises what it reads; fold the factor into its weights")
    site = _site(path, settings, layer)
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


def _site(path: Path, settings: Mapping[str, Any], layer: int) -> Site:
    """Where its settings say that it reads; `UserError` where that is not a site of `layer`."""
    said = next((settings[name] for name in _PLACES if isinstance(settings.get(name), str)), None)
    if said is None:
        return Site(layer=layer)
    found = _PLACE.fullmatch(said)
    parts = {} if found is None else found.groupdict()
    kind = parts.get("hook") or parts.get("module") or parts.get("tapped") or "resid_post"
    if found is None or kind not in _SITES:
        raise UserError(
            f"{path}: it reads {said!r}, which is none of the sites that are understood: "
            f"{', '.join(get_args(SiteKind))} of a layer"
        )
    trained_on = int(parts["hooked"] or parts["module_of"] or parts["tapped_at"])
    if trained_on != layer:
        raise UserError(
            f"{path}: it reads {said!r}, and layer {layer} was asked for; name layer {trained_on}"
        )
    return Site(layer=layer, kind=_SITES[kind])


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
