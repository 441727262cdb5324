"""A causal language model under examination: tokens, log-probabilities, activations, edits."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from dragoman.core.errors import ToolError
from dragoman.core.protocols import TokenProbability
from dragoman.core.records import Site, SubjectIdentity
from dragoman.tools.subjects import hooks
from dragoman.tools.subjects.anatomy import dissect
from dragoman.tools.subjects.generation import PromptPass, sample, sample_from
from dragoman.tools.subjects.hooks import Edit
from dragoman.tools.subjects.identity import identify


class Batch(NamedTuple):
    """Left-padded token ids with the position ids that left padding needs."""

    ids: Int[Tensor, "batch pos"]
    mask: Int[Tensor, "batch pos"]
    positions: Int[Tensor, "batch pos"]


class LanguageSubject:
    """Any Hugging Face causal LM with a fast tokenizer: frozen, float32, in eval mode.

    Token positions are counted from the end (-1 is the last token), so they hold under any left
    padding. The document-start token, where the model expects one, is added by `batch`.
    """

    kind: Literal["language"] = "language"

    def __init__(self, model: Any, tokenizer: Any, name: str) -> None:
        if not tokenizer.is_fast:
            raise ToolError(f"subject {name!r} has no fast tokenizer, so no character offsets")
        self.model = model.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.anatomy = dissect(model)
        self.identity: SubjectIdentity = identify(model, tokenizer, name, self._d_mlp())
        self.document_start = _document_start(tokenizer)
        self._pad_id: int = next(
            token
            for token in (tokenizer.pad_token_id, tokenizer.eos_token_id, 0)
            if token is not None
        )

    def _d_mlp(self) -> int:
        weight: Any = self.anatomy.blocks[0].down_projection.weight
        return int(weight.numel()) // int(self.model.config.hidden_size)

    # Sizes

    @property
    def n_layers(self) -> int:
        """Number of blocks."""
        return self.identity.n_layers

    @property
    def d_model(self) -> int:
        """Width of the residual stream."""
        return self.identity.d_model

    @property
    def d_mlp(self) -> int:
        """MLP neurons a layer."""
        return self.identity.d_mlp

    @property
    def d_vocab(self) -> int:
        """Size of the output vocabulary."""
        return self.identity.d_vocab

    @property
    def units(self) -> tuple[int, ...]:
        """MLP neurons of each layer."""
        return (self.d_mlp,) * self.n_layers

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        device: torch.device = self.model.device
        return device

    @property
    def blocks(self) -> list[torch.nn.Module]:
        """The decoder blocks, first to last."""
        return [parts.block for parts in self.anatomy.blocks]

    @property
    def is_narrow(self) -> bool:
        """Whether the weights are held in less than float32."""
        return bool(self.model.dtype != torch.float32)

    def check_wide(self, who: str) -> None:
        """`ToolError` unless the weights are held in float32, in which `who` computes."""
        if self.is_narrow:
            raise ToolError(
                f"{who} computes in float32, and the subject's weights are held in less: leave "
                "DRAGOMAN_SUBJECT_DTYPE out"
            )

    def site_width(self, site: Site) -> int:
        """Size of the last axis at `site`; `ToolError` where heads cannot be told apart."""
        match site.kind:
            case "mlp_act":
                return self.d_mlp
            case "attn_z":
                weight = self.attention_projection(site.layer).get_parameter("weight")
                return weight.numel() // self.d_model
            case _:
                return self.d_model

    def attention_projection(self, layer: int) -> nn.Module:
        """Maps what all heads found to what attention writes; `ToolError` where none does alone."""
        projection = self.anatomy.blocks[layer].attention_projection
        if projection is None:
            raise ToolError(f"the heads of subject {self.identity.name!r} cannot be told apart")
        return projection

    def check_layer(self, layer: int, name: str = "layer") -> None:
        """`ToolError` unless the subject has that layer."""
        if not 0 <= layer < self.n_layers:
            raise ToolError(
                f"{name} {layer} is outside 0..{self.n_layers - 1} "
                f"of subject {self.identity.name!r}"
            )

    # Tokens

    def token_ids(self, text: str) -> list[int]:
        """The ids of `text`, document start included."""
        ids: list[int] = self.tokenizer(text)["input_ids"]
        start = self.document_start
        return ids if start is None else [start, *ids]

    def batch(self, texts: Sequence[str]) -> Batch:
        """Left-padded ids of `texts`, each with the document start that the model expects."""
        rows = [self.token_ids(text) for text in texts]
        if not rows or not all(rows):
            raise ToolError("a prompt must hold at least one token")
        longest = max(map(len, rows))
        limit = getattr(self.model.config, "max_position_embeddings", None)
        if limit is not None and longest > limit:
            raise ToolError(f"a prompt of {longest} tokens is longer than the subject's {limit}")
        padding = [longest - len(row) for row in rows]
        ids = torch.tensor(
            [[self._pad_id] * pad + row for pad, row in zip(padding, rows, strict=True)],
            device=self.device,
        )
        start = torch.tensor(padding, device=self.device)[:, None]
        steps = torch.arange(longest, device=self.device)[None, :]
        return Batch(ids, (steps >= start).long(), (steps - start).clamp(min=0))

    def token_span(self, text: str, start: int, end: int) -> tuple[int, int]:
        """First and last token (counted from the end of `text`) that cover `text[start:end]`."""
        offsets = self.tokenizer(text, return_offsets_mapping=True)["offset_mapping"]
        covering = [
            index - len(offsets)
            for index, (left, right) in enumerate(offsets)
            if left < end and right > start and right > left
        ]
        if not covering:
            raise ToolError(f"no token covers characters {start}..{end} of the prompt")
        return covering[0], covering[-1]

    def last_token(self, text: str, char_end: int) -> int:
        """The token (counted from the end) that covers the character before `char_end`."""
        return self.token_span(text, char_end - 1, char_end)[1]

    def entity_end(
        self, text: str, entity: str, occurrence: Literal["first", "last"] = "last"
    ) -> int:
        """Character just past `entity` in `text`; `ToolError` if it does not occur."""
        found = text.find(entity) if occurrence == "first" else text.rfind(entity)
        if found < 0 or not entity:
            raise ToolError(f"entity {entity!r} does not occur in the prompt {text!r}")
        return found + len(entity)

    def continuation_ids(self, text: str) -> list[int]:
        """The ids of `text` as a continuation: after a space, without document start."""
        ids: list[int] = self.tokenizer(" " + text.strip(), add_special_tokens=False)["input_ids"]
        if not ids:
            raise ToolError(f"{text!r} has no tokens")
        return ids

    def first_token(self, text: str) -> int:
        """The first id of `text` as a continuation."""
        return self.continuation_ids(text)[0]

    def token_text(self, token: int) -> str:
        """The text of one token."""
        text: str = self.tokenizer.decode([token])
        return text

    # Forward passes

    @contextmanager
    def editing(self, edits: Sequence[Edit]) -> Iterator[None]:
        """Every forward pass inside applies `edits`."""
        for edit in edits:
            self.check_layer(edit.site.layer)
        with hooks.editing(self.anatomy, edits):
            yield

    @contextmanager
    def capture(self, sites: Sequence[Site]) -> Iterator[dict[Site, Tensor]]:
        """Activations at `sites` of the last forward pass inside."""
        for site in sites:
            self.check_layer(site.layer)
        with hooks.capture(self.anatomy, sites) as taken:
            yield taken

    def forward(self, batch: Batch, edits: Sequence[Edit] = (), **options: Any) -> Any:
        """The model's own output for `batch`; `options` go to its forward method."""
        with self.editing(edits):
            return self.model(
                input_ids=batch.ids,
                attention_mask=batch.mask,
                position_ids=batch.positions,
                **{"use_cache": False, **options},
            )

    def logits(self, batch: Batch, edits: Sequence[Edit] = ()) -> Float[Tensor, "batch d_vocab"]:
        """Logits at the last position."""
        logits: Tensor = self.forward(batch, edits, logits_to_keep=1).logits[:, -1]
        return logits

    def all_logits(
        self, batch: Batch, edits: Sequence[Edit] = ()
    ) -> Float[Tensor, "batch pos d_vocab"]:
        """Logits at every position."""
        logits: Tensor = self.forward(batch, edits).logits
        return logits

    @torch.no_grad()
    def log_probs(
        self, texts: Sequence[str], edits: Sequence[Edit] = (), *, batch_size: int = 32
    ) -> Float[Tensor, "batch d_vocab"]:
        """Next-token log-probabilities after each text, in nats.

        With `edits`, all texts go in one batch, since an edit may be meant row by row.
        """
        step = len(texts) if edits else batch_size
        parts = [
            self.logits(self.batch(texts[start : start + step]), edits).log_softmax(-1)
            for start in range(0, len(texts), step)
        ]
        return torch.cat(parts)

    def activations(
        self, batch: Batch, sites: Sequence[Site], edits: Sequence[Edit] = ()
    ) -> dict[Site, Float[Tensor, "batch pos d"]]:
        """Activations at `sites`, after `edits`."""
        with self.editing(edits), self.capture(sites) as taken:
            self.forward(batch, logits_to_keep=1)
        return taken

    def decode(self, resid: Float[Tensor, "*rows d_model"]) -> Float[Tensor, "*rows d_vocab"]:
        """Logits of a residual vector: final norm and unembedding (exact at the last block)."""
        parts = self.anatomy
        for module in (parts.final_norm, parts.project_out, parts.unembedding):
            resid = resid if module is None else module(resid)
        if parts.logit_softcap is None:
            return resid
        return torch.tanh(resid / parts.logit_softcap) * parts.logit_softcap

    # Text

    def generate(
        self,
        texts: Sequence[str],
        max_new_tokens: int,
        *,
        edits: Sequence[Edit] = (),
        temperature: float = 0.0,
        top_k: int | None = None,
        streams: Sequence[int] | None = None,
        seed: int = 0,
        batch_size: int = 32,
    ) -> list[str]:
        """New text only. Edits act on the prompt pass, never again at generated tokens.

        Texts of one stream are drawn by the same random numbers (`generation.sample`). With edits
        or streams all texts go in one batch.
        """
        step = len(texts) if edits or streams is not None else batch_size
        written: list[str] = []
        for start in range(0, len(texts), step):
            batch = self.batch(texts[start : start + step])
            ids = sample(
                self,
                batch,
                max_new_tokens,
                edits=edits,
                temperature=temperature,
                top_k=top_k,
                streams=streams,
                seed=seed + start,
            )
            written += self.tokenizer.batch_decode(ids, skip_special_tokens=True)
        return written

    def generate_from(
        self,
        prompts: PromptPass,
        max_new_tokens: int,
        *,
        temperature: float = 0.0,
        top_k: int | None = None,
        streams: Sequence[int] | None = None,
        seed: int = 0,
    ) -> list[str]:
        """New text alone, as `generate` in one batch, after a prompt pass that is there already."""
        ids = sample_from(
            self,
            prompts,
            max_new_tokens,
            temperature=temperature,
            top_k=top_k,
            streams=streams,
            seed=seed,
        )
        written: list[str] = self.tokenizer.batch_decode(ids, skip_special_tokens=True)
        return written

    def continue_text(
        self,
        prompts: Sequence[str],
        max_new_tokens: int,
        *,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> list[str]:
        """Only the new text after each prompt; greedy at temperature 0."""
        return self.generate(prompts, max_new_tokens, temperature=temperature, seed=seed)

    def next_tokens(self, prompts: Sequence[str], k: int) -> list[list[TokenProbability]]:
        """The `k` most probable next tokens after each prompt, most probable first."""
        top = self.log_probs(prompts).exp().topk(k)
        return [
            [
                TokenProbability(token=self.token_text(int(token)), probability=float(probability))
                for probability, token in zip(probabilities, tokens, strict=True)
            ]
            for probabilities, tokens in zip(top.values, top.indices, strict=True)
        ]


def _document_start(tokenizer: Any) -> int | None:
    """The token that opened documents in training, unless the tokenizer adds one itself."""
    if tokenizer("a")["input_ids"] != tokenizer("a", add_special_tokens=False)["input_ids"]:
        return None
    # Chat-tuned models name a turn marker as bos_token; plain text was trained behind this one.
    start: int | None = tokenizer.get_vocab().get("<|endoftext|>", tokenizer.bos_token_id)
    return start
