"""Forward passes over prompts that begin alike: the common beginning is computed once.

A relation's prompts share their in-context examples, up to the first token in which their subjects
differ. Keys and values of that beginning are cached; each pass runs over the few tokens after it.
A pass with h changed at one layer starts right there: below it nothing is different.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from dragoman.core.records import Site
from dragoman.tools.circuits.precision import float32_maths, put_back
from dragoman.tools.circuits.prompts import RelationPrompt
from dragoman.tools.subjects.anatomy import replaced
from dragoman.tools.subjects.language import LanguageSubject
from dragoman.tools.subjects.likelihood import common_prefix

ROWS = 32
"""Prompts a pass: bounds the memory of the repeated cache."""
KEPT_BYTES = 2**29
"""Residuals that may be kept so that changed passes can start at the layer of the change."""


class Readout(NamedTuple):
    """What a subject holds at the end of a set of prompts."""

    entity: Float[Tensor, "layer batch d_model"]
    """h: `resid_post` of every layer at the last token of the entity asked about."""
    final: Float[Tensor, "batch d_model"]
    """z: output of the last block, before the final norm, at the last token."""
    embedding: Float[Tensor, "batch d_model"]
    """What enters the first block at the entity's last token."""


class SharedPrompts:
    """Prompts with a cached common beginning that ends before any entity's last token."""

    def __init__(self, subject: LanguageSubject, prompts: Sequence[RelationPrompt]) -> None:
        self._subject = subject
        batch = subject.batch([prompt.text for prompt in prompts])
        rows = [ids[mask.bool()].tolist() for ids, mask in zip(batch.ids, batch.mask, strict=True)]
        entities = [
            len(row) + subject.last_token(prompt.text, prompt.subject_end)
            for row, prompt in zip(rows, prompts, strict=True)
        ]
        self.n_shared = min(common_prefix(rows), *entities)
        self.rests = [row[self.n_shared :] for row in rows]
        self.entity_at = [entity - self.n_shared for entity in entities]
        """Index of the entity's last token within each rest."""
        self._beginning = rows[0][: self.n_shared]
        self._cache = self._filled_cache()
        self._kept: list[Float[Tensor, "layer batch pos d_model"]] = []

    def __len__(self) -> int:
        """Number of prompts."""
        return len(self.rests)

    @torch.no_grad()
    def _filled_cache(self) -> DynamicCache:
        cache = DynamicCache(config=self._subject.model.config)
        if self._beginning:
            self._run([self._beginning], 0, cache)
        return cache

    def _run(self, rows: Sequence[Sequence[int]], start: int, cache: DynamicCache) -> None:
        longest = max(map(len, rows))
        # Padding on the right needs no mask: under causal attention nothing real looks at it.
        ids = torch.tensor([[*row, *[row[-1]] * (longest - len(row))] for row in rows])
        positions = torch.arange(start, start + longest).expand(len(rows), -1)
        device = self._subject.device
        with float32_maths(self._subject):
            # Not the whole model: no caller wants logits here, and they would cost a fifth.
            self._subject.model.base_model(
                input_ids=ids.to(device),
                position_ids=positions.to(device),
                past_key_values=cache,
                use_cache=True,
            )

    def run(self, rows: Sequence[int]) -> None:
        """One pass over the rests of the prompts `rows`: what hooks see are those tokens alone."""
        cache = self._repeated(len(rows))
        self._run([self.rests[row] for row in rows], self.n_shared, cache)

    def _repeated(self, count: int) -> DynamicCache:
        """The cache for `count` rows; a DynamicCache grows with every pass, so each needs one."""
        plain = all(type(layer) is DynamicLayer for layer in self._cache.layers)
        if not self._beginning or not plain:
            cache = copy.deepcopy(self._cache)
            if self._beginning and count > 1:
                cache.batch_repeat_interleave(count)
            return cache
        # Growing concatenates into new tensors, so rows can share the old ones.
        cache = copy.copy(self._cache)
        cache.layers = [copy.copy(layer) for layer in self._cache.layers]
        for layer in cache.layers:
            if not isinstance(layer, DynamicLayer):
                continue
            keys, values = layer.keys, layer.values
            if keys is not None and values is not None:
                layer.keys = keys.expand(count, -1, -1, -1)
                layer.values = values.expand(count, -1, -1, -1)
        return cache

    @torch.no_grad()
    def read(self, *, keep: bool = False) -> Readout:
        """Each prompt's h at every layer, and its z.

        With `keep`, what `read_shifted` needs to start at its own layer stays in memory, unless
        that would be more than `KEPT_BYTES`.
        """
        entities, finals, embeddings = [], [], []
        returns: list[type] = []

        def note(module: nn.Module, args: Any, output: Any) -> None:
            returns.append(type(output))

        sites = [Site(layer=layer) for layer in range(self._subject.n_layers)]
        below = Site(layer=0, kind="resid_pre")
        longest = max(map(len, self.rests))
        size = 4 * len(sites) * len(self) * longest * self._subject.d_model
        keep = keep and size <= KEPT_BYTES
        self._kept = []
        for start in range(0, len(self), ROWS):
            rows = range(start, min(start + ROWS, len(self)))
            hook = self._subject.blocks[0].register_forward_hook(note)
            with self._subject.capture([*sites, below]) as taken:
                self.run(rows)
            hook.remove()
            count = torch.arange(len(rows))
            at = torch.tensor([self.entity_at[row] for row in rows])
            entities.append(torch.stack([taken[site][count, at].float() for site in sites]))
            embeddings.append(taken[below][count, at].float())
            finals.append(self._last(taken[sites[-1]], rows))
            # A family whose blocks return tuples cannot have them passed over.
            if keep and issubclass(returns[-1], Tensor):
                self._kept.append(torch.stack([taken[site] for site in sites]))
        return Readout(torch.cat(entities, dim=1), torch.cat(finals), torch.cat(embeddings))

    @torch.no_grad()
    def read_shifted(
        self, rows: Sequence[int], layer: int, shifts: Float[Tensor, "batch d_model"]
    ) -> Float[Tensor, "batch d_model"]:
        """Each row's z after its shift was added to h at `layer`."""
        finals = []
        last = Site(layer=self._subject.n_layers - 1)
        for start in range(0, len(rows), ROWS):
            part = list(rows[start : start + ROWS])
            at = torch.tensor([self.entity_at[row] for row in part])
            shift = shifts[start : start + ROWS]

            def change(
                resid: Tensor, at: Tensor = at, shift: Tensor = shift
            ) -> Float[Tensor, "batch pos d_model"]:
                changed = resid.clone()
                changed[torch.arange(len(at)), at] += shift.to(resid.dtype)
                return changed

            kept = self._kept_at(layer, part)
            blocks = self._subject.blocks
            # The capture goes in after the change and so sees a change of the last block as well.
            with _starting_at(blocks, layer, kept, change), self._subject.capture([last]) as taken:
                self.run(part)
            finals.append(self._last(taken[last], part))
        return torch.cat(finals)

    def _kept_at(
        self, layer: int, rows: Sequence[int]
    ) -> Float[Tensor, "batch pos d_model"] | None:
        if not self._kept:
            return None
        longest = max(len(self.rests[row]) for row in rows)
        padded = []
        for row in rows:
            resid = self._kept[row // ROWS][layer, row % ROWS, :longest]
            # What stands after a row's end is never looked at: any vector will do.
            missing = longest - resid.shape[0]
            padded.append(nn.functional.pad(resid, (0, 0, 0, missing)))
        return torch.stack(padded)

    def _last(
        self, resid: Float[Tensor, "batch pos d_model"], rows: Sequence[int]
    ) -> Float[Tensor, "batch d_model"]:
        at = torch.tensor([len(self.rests[row]) - 1 for row in rows])
        return resid[torch.arange(len(rows)), at].float()


@contextmanager
def _starting_at(
    blocks: Sequence[nn.Module],
    layer: int,
    kept: Float[Tensor, "batch pos d_model"] | None,
    change: Callable[[Tensor], Tensor],
) -> Iterator[None]:
    """Passes inside have `change` applied to the output of block `layer`.

    Where that output is `kept`, the blocks up to it are not run at all.
    """

    def replace(module: nn.Module, args: Any, output: Any) -> Any:
        resid = output[0] if isinstance(output, tuple) else output
        return replaced(output, change(resid if kept is None else kept.to(resid.dtype)))

    with ExitStack() as stack:
        if kept is not None:
            for block in blocks[: layer + 1]:
                shadowed = block.__dict__.get("forward")
                block.forward = _pass_on
                stack.callback(put_back, block, shadowed)
        stack.callback(blocks[layer].register_forward_hook(replace).remove)
        yield


def _pass_on(hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """A block that does nothing."""
    return hidden_states
