"""Text on which units are watched: by default sampled from the subject itself.

No text has to be downloaded, and it is on the subject's own distribution. Sampling is seeded, goes
shard by shard, and each finished shard is cached, so that an interrupted run goes on where it was
and a larger corpus contains the smaller one.
"""

import itertools
import json
import math
import random
from collections.abc import Sequence
from importlib import resources
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from pydantic import ValidationError
from torch import Tensor

from dragoman.core.errors import UserError
from dragoman.core.files import write_atomic
from dragoman.core.records import Record
from dragoman.tools.captioning.corpora import HeldPart, open_corpus
from dragoman.tools.context import ToolContext
from dragoman.tools.subjects.language import LanguageSubject

SHARD_DOCUMENTS = 100
TOKENS = 64
TEMPERATURE = 0.9
MIN_DOCUMENTS = 50
"""Split in three, fewer leave nothing to judge a caption on."""


class Corpus(Record):
    """Documents, and where they come from; equal ids mean equal documents in equal order."""

    id: str
    description: str
    documents: tuple[str, ...]

    @property
    def parts(self) -> tuple[HeldPart]:
        """All documents, as the one part of a `TextCorpus`."""
        return (HeldPart(self.documents),)

    @property
    def n_documents(self) -> int:
        """Number of documents."""
        return len(self.documents)


class SampledCorpus(Record):
    """All that a sampled corpus depends on, except how many of its documents are used."""

    subject_digest: str
    seed: int
    tokens: int = TOKENS
    temperature: float = TEMPERATURE
    openings: tuple[str, ...]
    """What the subject continues; the opening itself is no part of the document."""


class _Shard(Record):
    documents: tuple[str, ...]


def sample_corpus(context: ToolContext, n_documents: int, *, tokens: int = TOKENS) -> Corpus:
    """`n_documents` continuations of varied openings by the subject, `tokens` tokens each.

    Finished shards come from the cache; raises `Interrupted` between shards when asked to stop.
    """
    specification = SampledCorpus(
        subject_digest=context.subject.identity.digest,
        seed=context.seed,
        tokens=tokens,
        openings=openings(context.seed),
    )
    identifier = specification.content_id()
    folder = context.cache / "corpora" / identifier
    documents: list[str] = []
    for shard in range(math.ceil(n_documents / SHARD_DOCUMENTS)):
        context.step(len(documents), n_documents, "sampling text from the subject")
        path = folder / f"{shard:03}.json"
        documents += _cached(path) or _sampled(context.subject, specification, shard, path)
    return Corpus(
        id=identifier,
        description=(
            f"{n_documents} texts of at most {tokens} tokens sampled from the subject at "
            f"temperature {TEMPERATURE} after varied openings, seed {context.seed}"
        ),
        documents=tuple(documents[:n_documents]),
    )


def openings(seed: int) -> tuple[str, ...]:
    """Every genre with every topic once, in an order drawn from `seed`."""
    text = resources.files("dragoman.tools").joinpath("data/captioning/openings.json")
    parts = json.loads(text.read_text("utf-8"))
    crossed = [
        genre.format(topic=topic)
        for genre, topic in itertools.product(parts["genres"], parts["topics"])
    ]
    random.Random(f"openings {seed}").shuffle(crossed)
    return tuple(crossed)


def read_corpus(path: Path, tokenizer: Any, n_documents: int) -> Corpus:
    """A person's own corpus, any that `corpora.open_corpus` understands.

    Each text is cut after `TOKENS` tokens; the first `n_documents` count. `UserError` when the
    file is absent, too short or malformed; the message names the line or row.
    """
    texts = list(islice(open_corpus(path).texts(), n_documents))
    if len(texts) < MIN_DOCUMENTS:
        raise UserError(f"{path}: {len(texts)} texts; a corpus needs at least {MIN_DOCUMENTS}")
    documents = tuple(_cut(text, tokenizer) for text in texts)
    return Corpus(
        id=_Shard(documents=documents).content_id(),
        description=f"{len(documents)} texts of {path.name}, each cut after {TOKENS} tokens",
        documents=documents,
    )


def _cut(text: str, tokenizer: Any) -> str:
    offsets = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    ends = [end for _, end in offsets["offset_mapping"][:TOKENS]]
    return text[: ends[-1]] if ends else text


def _cached(path: Path) -> tuple[str, ...] | None:
    # A shard that is absent or damaged is sampled anew: the cache holds nothing irreplaceable.
    try:
        return _Shard.model_validate_json(path.read_bytes()).documents
    except (OSError, ValidationError):
        return None


def _sampled(
    subject: LanguageSubject, specification: SampledCorpus, shard: int, path: Path
) -> tuple[str, ...]:
    start = shard * SHARD_DOCUMENTS
    prompts = [
        specification.openings[index % len(specification.openings)]
        for index in range(start, start + SHARD_DOCUMENTS)
    ]
    ids = sample_ids(
        subject,
        prompts,
        specification.tokens,
        temperature=specification.temperature,
        seed=specification.seed * 1_000_003 + shard,
    )
    documents = tuple(subject.tokenizer.batch_decode(ids, skip_special_tokens=True))
    write_atomic(path, _Shard(documents=documents).model_dump_json())
    return documents


@torch.no_grad()
def sample_ids(
    subject: LanguageSubject,
    prompts: Sequence[str],
    max_new_tokens: int,
    *,
    temperature: float,
    seed: int,
) -> Int[Tensor, "batch new"]:
    """Seeded sampling for bulk text: never a special token, so every document is full length.

    A quarter faster than `LanguageSubject.generate`: a draw by the inverse of the cumulative
    distribution takes one random number a row where `torch.multinomial` takes one a token id.
    """
    generator = torch.Generator(device=subject.device).manual_seed(seed)
    banned = torch.tensor(subject.tokenizer.all_special_ids, dtype=torch.long)
    batch = subject.batch(prompts)
    output = subject.forward(batch, use_cache=True, logits_to_keep=1)
    mask, position = batch.mask, batch.positions[:, -1:]
    new: list[Tensor] = []
    for step in range(max_new_tokens):
        logits = output.logits[:, -1] / temperature
        logits[:, banned] = -torch.inf
        new.append(_drawn(logits, generator))
        if step == max_new_tokens - 1:
            break
        mask = torch.cat([mask, mask.new_ones(mask.shape[0], 1)], dim=1)
        position = position + 1
        output = subject.model(
            input_ids=new[-1][:, None],
            attention_mask=mask,
            position_ids=position,
            past_key_values=output.past_key_values,
            use_cache=True,
        )
    return torch.stack(new, dim=1)


def _drawn(
    logits: Float[Tensor, "batch d_vocab"], generator: torch.Generator
) -> Int[Tensor, " batch"]:
    cumulative = logits.softmax(-1).cumsum(-1)
    uniform = torch.rand(logits.shape[0], 1, generator=generator, device=logits.device)
    # Rounding can leave the last cumulative value below 1: scale the draw to what is there.
    # right=True never lands on an id of probability zero.
    drawn = torch.searchsorted(cumulative, uniform * cumulative[:, -1:], right=True)
    return drawn[:, 0].clamp(max=logits.shape[1] - 1)
