"""Forward passes that recompute only what an edit can change.

An edit at `layer`, at one token of each prompt, changes nothing below that layer and nothing at
earlier positions. Both are computed once here; a pass with an edit then runs the blocks above the
layer over the remaining positions, with the earlier keys and values as constants. The results are
those of a full pass (a test holds that, gradients included).
"""

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import DynamicCache

from dragoman.core.records import Site
from dragoman.tools.editing.records import Prompt
from dragoman.tools.subjects.generation import PromptPass
from dragoman.tools.subjects.language import LanguageSubject
from dragoman.tools.subjects.resuming import output_shapes, resuming


class PromptCache:
    """The part of some prompts' forward passes that edits at `layers` leave alone.

    Attributes:
        positions: where each prompt's entity ends, as a negative token index.
        n_tail: positions that are recomputed, the same for all prompts: from the earliest edited
            token to the end.
        log_probs: next-token log-probabilities without an edit over the tail.
        kl_mask: tail positions that the edit must leave alone: from the entity's last token up
            to, but excluding, the final token.
        from_entity: the same, the final token included.

    With `final_only`, log-probabilities are of the final position alone (a tail of 1): enough to
    measure answers, and a fraction of the memory.
    """

    positions: Int[Tensor, " prompt"]
    n_tail: int
    log_probs: Float[Tensor, "prompt tail d_vocab"]
    kl_mask: Bool[Tensor, "prompt tail"]
    from_entity: Bool[Tensor, "prompt tail"]

    @torch.no_grad()
    def __init__(
        self,
        subject: LanguageSubject,
        prompts: Sequence[Prompt],
        layers: Sequence[int],
        *,
        final_only: bool = False,
    ) -> None:
        for layer in layers:
            subject.check_layer(layer)
        self._subject = subject
        self._n_logits = 1 if final_only else 0
        self._batch = subject.batch([prompt.text for prompt in prompts])
        self.positions = torch.tensor(
            [subject.last_token(prompt.text, prompt.entity_end) for prompt in prompts],
            device=subject.device,
        )
        self.n_tail = int(-self.positions.min())
        sites = [Site(layer=layer) for layer in layers]
        with ExitStack() as stack:
            shapes = stack.enter_context(output_shapes(subject.blocks))
            taken = stack.enter_context(subject.capture(sites))
            output = subject.forward(
                self._batch, use_cache=True, logits_to_keep=self._n_logits or self.n_tail
            )
        self._shapes = tuple(shapes)
        self._resid = {site.layer: taken[site][:, -self.n_tail :].clone() for site in sites}
        self.log_probs = output.logits.log_softmax(-1)
        self._n_prefix = self._batch.ids.shape[1] - self.n_tail
        self._keys_values = [
            (layer.keys.clone(), layer.values.clone()) for layer in output.past_key_values.layers
        ]
        steps = torch.arange(-self.n_tail, 0, device=subject.device)
        self.from_entity = steps[None] >= self.positions[:, None]
        self.kl_mask = self.from_entity & (steps < -1)

    def edited_log_probs(
        self, layer: int, rows: Sequence[int], directions: Float[Tensor, "row d_model"]
    ) -> Float[Tensor, "row tail d_vocab"]:
        """Log-probabilities over the tail of prompts `rows`, with one direction added to each.

        The direction is added to the block's output at the entity's last token; autograd flows
        to `directions`.
        """
        output = self._edited(layer, rows, directions, self._n_logits)
        log_probs: Tensor = output.logits.log_softmax(-1)
        return log_probs

    @torch.no_grad()
    def edited_prompts(
        self, layer: int, rows: Sequence[int], directions: Float[Tensor, "row d_model"]
    ) -> PromptPass:
        """The same pass, for text to be generated from: many edits of a prompt share its cost."""
        output = self._edited(layer, rows, directions, 1)
        index = torch.tensor(rows, device=self._subject.device)
        past = output.past_key_values
        # The blocks that did not run have added nothing of their own to the cache.
        for below, (keys, values) in enumerate(self._keys_values[: layer + 1]):
            tail = slice(self._n_prefix, None)
            past.update(keys[index][:, :, tail], values[index][:, :, tail], below)
        return PromptPass(
            output.logits[:, -1], past, self._batch.mask[index], self._batch.positions[index, -1:]
        )

    def _edited(
        self,
        layer: int,
        rows: Sequence[int],
        directions: Float[Tensor, "row d_model"],
        n_logits: int,
    ) -> Any:
        index = torch.tensor(rows, device=self._subject.device)
        resid = self._resid[layer][index]
        at = torch.zeros(resid.shape[:2], device=resid.device)
        at[torch.arange(len(rows), device=resid.device), self.positions[index]] = 1.0
        edited = resid + at[..., None] * directions[:, None]
        tail = slice(-self.n_tail, None)
        with resuming(self._subject.blocks[: layer + 1], self._shapes, edited):
            return self._subject.model(
                input_ids=self._batch.ids[index, tail],
                attention_mask=self._batch.mask[index],
                position_ids=self._batch.positions[index, tail],
                past_key_values=self._past(index),
                use_cache=True,
                logits_to_keep=n_logits,
            )

    def _past(self, index: Int[Tensor, " row"]) -> DynamicCache:
        # Made anew for each pass: a cache grows with the pass that it is given to.
        past = DynamicCache()
        before = slice(None, self._n_prefix)
        for layer, (keys, values) in enumerate(self._keys_values):
            if self._n_prefix:
                past.update(keys[index][:, :, before], values[index][:, :, before], layer)
        return past


@torch.no_grad()
def read_residuals(
    subject: LanguageSubject, texts: Sequence[str], layers: Sequence[int]
) -> dict[int, Float[Tensor, "text pos d_model"]]:
    """The outputs of blocks `layers` for left-padded `texts`; no block above them runs."""

    def stop(module: nn.Module, args: Any, output: Any) -> None:
        raise _Enough

    sites = [Site(layer=layer) for layer in layers]
    with subject.capture(sites) as taken:
        handle = subject.blocks[max(layers)].register_forward_hook(stop)
        try:
            subject.forward(subject.batch(texts), logits_to_keep=1)
        except _Enough:
            pass
        finally:
            handle.remove()
    return {site.layer: taken[site] for site in sites}


class _Enough(Exception):
    """Ends a forward pass once what was wanted has been read."""
