"""What the subject holds at an entity, and what it then says: one batched pass for many prompts."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float

from dragoman.core.protocols import silent
from dragoman.core.records import Site
from dragoman.tools.editing.records import Prompt
from dragoman.tools.statistics import Floats
from dragoman.tools.subjects.language import LanguageSubject

AT_ONCE = 64
_MOST_LAYERS = 8


class Readings(NamedTuple):
    """Of some prompts, one row each; float64 on the host, since what follows is small algebra."""

    layers: tuple[int, ...]
    entity: Float[np.ndarray, "prompt layer d_model"]
    """Block outputs at the entity's last token."""
    answers: Float[np.ndarray, "prompt answer"]
    """Log-probability of each answer's first token after the prompt, in nats."""
    top: Floats
    """Log-probability of the most probable of all tokens, in nats."""
    entropy: Floats
    """Of the next token over the whole vocabulary, in nats."""

    def rows(self, chosen: Sequence[int]) -> "Readings":
        """The readings of some prompts."""
        at = list(chosen)
        return Readings(
            self.layers, self.entity[at], self.answers[at], self.top[at], self.entropy[at]
        )


def probe_layers(subject: LanguageSubject) -> tuple[int, ...]:
    """At most eight layers, evenly spread from the first to the last but one."""
    last = max(0, subject.n_layers - 2)
    spread = np.linspace(0, last, min(_MOST_LAYERS, last + 1))
    return tuple(sorted({round(float(layer)) for layer in spread}))


@torch.no_grad()
def read(
    subject: LanguageSubject,
    prompts: Sequence[Prompt],
    answer_ids: Sequence[int],
    layers: Sequence[int],
    *,
    batch_size: int = AT_ONCE,
    step: Callable[[int, int, str], None] = silent,
) -> Readings:
    """Entity vectors and answers of `prompts`, `batch_size` of them in one pass.

    Args:
        subject: the network.
        prompts: each with the place of its entity.
        answer_ids: first tokens whose log-probabilities are kept.
        layers: whose outputs are read.
        batch_size: prompts in one pass.
        step: told of progress, in prompts.
    """
    sites = [Site(layer=layer) for layer in layers]
    ids = torch.tensor(answer_ids, device=subject.device)
    # Prompts of like length share a pass: padding is work for nothing.
    order = sorted(range(len(prompts)), key=lambda at: len(prompts[at].text))
    n_prompts = len(prompts)
    entity = np.empty((n_prompts, len(sites), subject.d_model))
    answers = np.empty((n_prompts, len(answer_ids)))
    top, entropy = np.empty(n_prompts), np.empty(n_prompts)
    for start in range(0, n_prompts, batch_size):
        step(start, n_prompts, "reading entities and answers")
        mine = order[start : start + batch_size]
        some = [prompts[at] for at in mine]
        with subject.capture(sites) as taken:
            logits = subject.logits(subject.batch([each.text for each in some]))
        log_probs = logits.log_softmax(-1)
        at = torch.tensor([subject.last_token(each.text, each.entity_end) for each in some])
        row = torch.arange(len(some))
        for place, site in enumerate(sites):
            entity[mine, place] = taken[site][row, at].double().cpu().numpy()
        answers[mine] = log_probs[:, ids].double().cpu().numpy()
        top[mine] = log_probs.max(-1).values.double().cpu().numpy()
        entropy[mine] = -(log_probs.exp() * log_probs).sum(-1).double().cpu().numpy()
    return Readings(tuple(layers), entity, answers, top, entropy)
