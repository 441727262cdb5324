"""Hand-written matrices as a real Llama: what all planted subjects are made of.

Each of them writes its circuits in dimensions of its own choosing, and turns the residual stream
by an orthogonal matrix so that no neuron of it stands for anything by itself.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

# RMSNorm with a huge epsilon and a weight of its root is the identity to about 1e-7.
_EPSILON = 1e8
_ROPE_THETA = 1e6
_MAX_POSITIONS = 256


def llama_state(
    embedding: Float[ndarray, "d_vocab dims"],
    unembedding: Float[ndarray, "d_vocab dims"],
    layers: Sequence[Mapping[str, npt.NDArray[np.float64]]],
    *,
    read: Float[ndarray, "dims d_model"],
    write: Float[ndarray, "d_model dims"],
    d_head: int,
) -> dict[str, Tensor]:
    """The state of a `LlamaForCausalLM` from matrices over planted dimensions.

    `read` takes the residual stream to the planted dimensions and `write` takes them back; each
    layer has `q k v o gate up down`.
    """
    scale = math.sqrt(d_head)  # attention divides its scores by this
    identity = np.full(write.shape[0], math.sqrt(_EPSILON))
    state = {
        "model.embed_tokens.weight": embedding @ write.T,
        "lm_head.weight": unembedding @ read,
        "model.norm.weight": identity,
    }
    for index, layer in enumerate(layers):
        name = f"model.layers.{index}."
        state |= {
            f"{name}self_attn.q_proj.weight": scale * layer["q"] @ read,
            f"{name}self_attn.k_proj.weight": layer["k"] @ read,
            f"{name}self_attn.v_proj.weight": layer["v"] @ read,
            f"{name}self_attn.o_proj.weight": write @ layer["o"],
            f"{name}mlp.gate_proj.weight": layer["gate"] @ read,
            f"{name}mlp.up_proj.weight": layer["up"] @ read,
            f"{name}mlp.down_proj.weight": write @ layer["down"],
            f"{name}input_layernorm.weight": identity,
            f"{name}post_attention_layernorm.weight": identity,
        }
    return {name: torch.tensor(value, dtype=torch.float32) for name, value in state.items()}


def make_llama(state: Mapping[str, Tensor], *, n_layers: int, d_head: int) -> Any:
    """A `LlamaForCausalLM` with this state; its other sizes are those of the state's matrices."""
    d_vocab, d_model = state["lm_head.weight"].shape
    first = "model.layers.0."
    config = LlamaConfig(
        vocab_size=d_vocab,
        hidden_size=d_model,
        intermediate_size=state[f"{first}mlp.gate_proj.weight"].shape[0],
        num_hidden_layers=n_layers,
        num_attention_heads=state[f"{first}self_attn.q_proj.weight"].shape[0] // d_head,
        head_dim=d_head,
        hidden_act="relu",
        max_position_embeddings=_MAX_POSITIONS,
        rms_norm_eps=_EPSILON,
        rope_parameters={"rope_type": "default", "rope_theta": _ROPE_THETA},
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
        tie_word_embeddings=False,
    )
    model: Any = LlamaForCausalLM(config)
    model.load_state_dict(dict(state))
    return model.to(torch.float32)


def turn(pair: int, d_head: int) -> float:
    """Radians by which a rotary pair turns from one position to the next."""
    return float(_ROPE_THETA ** (-2 * pair / d_head))


def orthogonal(size: int, generator: np.random.Generator) -> npt.NDArray[np.float64]:
    """A random orthogonal matrix, uniform among all."""
    q, r = np.linalg.qr(generator.normal(size=(size, size)))
    return np.asarray(q * np.sign(np.diag(r)))
