"""The other ways of doing what circuit approximation does, timed by `evals/circuit_speed.py`."""

import json
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from safetensors import safe_open
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from dragoman.core.errors import UserError
from dragoman.core.records import Site
from dragoman.tools.circuits.approximation import RelationMap
from dragoman.tools.circuits.faithfulness import decode, hits
from dragoman.tools.circuits.jacobian import COPIES
from dragoman.tools.circuits.passes import SharedPrompts
from dragoman.tools.circuits.prompts import RelationPrompt
from dragoman.tools.relations import Sample
from dragoman.tools.subjects.hooks import Edit, add_at
from dragoman.tools.subjects.language import LanguageSubject


def per_layer(
    subject: LanguageSubject, prompt: RelationPrompt, layer: int
) -> Float[Tensor, "d_model d_model"]:
    """The usual way: a batched Jacobian at one layer, keys and values before the entity cached."""
    shared = SharedPrompts(subject, [prompt])
    top = Site(layer=subject.n_layers - 1)

    def final(entity: Tensor) -> Tensor:
        def put(resid: Tensor) -> Tensor:
            changed = resid.clone()
            changed[0, 0] = entity
            return changed

        edits = [Edit(Site(layer=layer), put)]
        with subject.editing(edits), subject.capture([top]) as taken:
            shared.run([0])
        return taken[top][0, -1]

    entity = shared.read().entity[layer, 0]
    derive: Any = torch.autograd.functional.jacobian  # untyped in torch
    with sdpa_kernel(SDPBackend.MATH):  # the fused kernels have no vectorised reverse pass
        jacobian: Tensor = derive(final, entity, vectorize=True)
    return jacobian


def floor(subject: LanguageSubject, prompts: Sequence[RelationPrompt], n_rows: int) -> None:
    """`n_rows` plain reverse passes over each suffix, down to the first layer; nothing is kept."""
    bottom, top = Site(layer=0), Site(layer=subject.n_layers - 1)
    start = Edit(bottom, lambda resid: resid.detach().requires_grad_())
    for prompt in prompts:
        shared = SharedPrompts(subject, [prompt])
        copies = min(COPIES, n_rows)
        with torch.enable_grad():
            with subject.editing([start]), subject.capture([bottom, top]) as taken:
                shared.run([0] * copies)
            final = taken[top][:, -1]
            wanted = torch.ones_like(final)
            for _ in range(0, n_rows, copies):
                torch.autograd.grad(final, taken[bottom], wanted, retain_graph=True)


class LibraryRun(NamedTuple):
    """What the package found, by layer."""

    seconds: dict[int, float]
    """Processor seconds."""
    weights: dict[int, Tensor]
    biases: dict[int, Tensor]
    versions: str


def run_library(
    subject: LanguageSubject, prompts: Sequence[RelationPrompt], layers: Sequence[int], python: str
) -> LibraryRun:
    """The package's maps, made in its own environment (Llama subjects alone)."""
    if subject.identity.architecture != "llama":
        raise UserError("--library compares Llama subjects only, such as the default subject")
    start = subject.document_start
    opening = "" if start is None else subject.token_text(start)
    with tempfile.TemporaryDirectory(prefix="dragoman-speed-") as scratch:
        folder = Path(scratch)
        subject.model.save_pretrained(folder / "model")
        subject.tokenizer.save_pretrained(folder / "model")
        task = {
            "folder": str(folder / "model"),
            "config": _old_configuration(subject),
            "layers": list(layers),
            "object_layer": subject.n_layers - 1,
            "threads": torch.get_num_threads(),
            "answer": str(folder / "answer.safetensors"),
            "prompts": [
                {
                    "text": opening + prompt.text,
                    # Only its length matters: z is read where the answer is about to begin.
                    "answer": "x",
                    "subject": _asked(prompt),
                }
                for prompt in prompts
            ],
        }
        (folder / "task.json").write_text(json.dumps(task), "utf-8")
        script = Path(__file__).with_name("circuit_speed_library.py")
        subprocess.run([python, str(script), str(folder / "task.json")], check=True)
        with safe_open(task["answer"], "pt") as opened:
            told = opened.metadata()
            seconds = json.loads(told["seconds"])
            return LibraryRun(
                {layer: seconds[str(layer)] for layer in layers},
                {layer: opened.get_tensor(f"{layer}.weight") for layer in layers},
                {layer: opened.get_tensor(f"{layer}.bias") for layer in layers},
                told["versions"],
            )


def _asked(prompt: RelationPrompt) -> str:
    """The word that the asked entity ends with: the package finds its last occurrence."""
    return prompt.text[: prompt.subject_end].split()[-1]


def _old_configuration(subject: LanguageSubject) -> dict[str, Any]:
    config = subject.model.config
    names = (
        "vocab_size",
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
        "rms_norm_eps",
        "max_position_embeddings",
        "tie_word_embeddings",
    )
    found = {name: getattr(config, name) for name in names}
    return {**found, "rope_theta": config.rope_parameters["rope_theta"]}


@torch.no_grad()
def edit_one_by_one(
    subject: LanguageSubject,
    prompts: Sequence[RelationPrompt],
    layer: int,
    shifts: Float[Tensor, "pair d_model"],
    count: int,
) -> None:
    """As published, at its cheapest: z and the inverse are there; one whole prompt for an edit."""
    for place in range(count):
        prompt, shift = prompts[place % len(prompts)], shifts[place % len(prompts)]
        at = subject.last_token(prompt.text, prompt.subject_end)
        edit = add_at(Site(layer=layer), [at], shift[None])
        subject.logits(subject.batch([prompt.text]), [edit]).argmax(-1)


@torch.no_grad()
def read_one_by_one(
    subject: LanguageSubject,
    prompts: Sequence[RelationPrompt],
    samples: Sequence[Sample],
    layer: int,
    relation_map: RelationMap,
    count: int,
) -> None:
    """As published: for each reading a whole prompt for h, then the map and the head."""
    site = Site(layer=layer)
    for place in range(count):
        sample, prompt = samples[place % len(samples)], prompts[place % len(samples)]
        at = subject.last_token(prompt.text, prompt.subject_end)
        entity = subject.activations(subject.batch([prompt.text]), [site])[site][0, at]
        first = torch.tensor([subject.first_token(sample.object)])
        hits(decode(subject, relation_map(entity[None], 2.0), first).texts, [sample])
