"""Nearness in meaning: which topics of the vocabulary a word is near to, by sentence embeddings.

Learned from nothing but the topics' own names and words: a topic is the mean of their vectors, and
a word belongs to it that is nearer to it than to all but one other topic, and as near as three in
four of the topic's own words are to the rest of them.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from pydantic import TypeAdapter, ValidationError

from dragoman.core.files import write_atomic
from dragoman.tools.captioning.senses import Vectors
from dragoman.tools.captioning.tokens import TokenTable
from dragoman.tools.captioning.vocabulary import topics
from dragoman.tools.context import ToolContext
from dragoman.tools.embedding import Embedder
from dragoman.tools.weights import EMBEDDINGS

_QUANTILE = 0.25
_TOPICS_A_WORD = 2
_CACHED: TypeAdapter[dict[str, tuple[str, ...]]] = TypeAdapter(dict[str, tuple[str, ...]])


def embedder(context: ToolContext) -> Vectors | None:
    """Texts to vectors of length one, remembered; None where the embedder's weights are not."""
    folder = context.weights_folder / EMBEDDINGS
    return _remembering(folder) if (folder / "model.safetensors").is_file() else None


@cache
def _remembering(folder: Path) -> Vectors:
    model = Embedder(folder)
    known: dict[str, Float[ndarray, " d"]] = {}

    def vectors(texts: Sequence[str]) -> Float[ndarray, "texts d"]:
        # Texts of like length go together, so little of a batch is padding.
        new = sorted(dict.fromkeys(text for text in texts if text not in known), key=len)
        for text, vector in zip(new, model(new), strict=True):
            known[text] = np.asarray(vector, dtype=np.float32)
        return np.stack([known[text] for text in texts])

    return vectors


def with_meanings(table: TokenTable, vectors: Vectors, cache_folder: Path) -> TokenTable:
    """`table`, knowing which topics its words are near to; what was embedded before is cached."""
    counted = Counter(table.word[table.begins].tolist())
    words = sorted(
        word for word, n in counted.items() if n > 1 and len(word) > 2 and word.isalpha()
    )
    spelled = json.dumps([words, _topics_digest()]).encode("utf-8", "surrogatepass")
    path = cache_folder / "meanings" / f"{hashlib.sha256(spelled).hexdigest()}.json"
    try:
        known = _CACHED.validate_json(path.read_bytes())
    except (OSError, ValidationError):
        known = near_topics(words, vectors)
        write_atomic(path, _CACHED.dump_json(known))
    return table.with_meanings(known)


def near_topics(words: Sequence[str], vectors: Vectors) -> dict[str, tuple[str, ...]]:
    """The topics that each of `words` is near to; words near to none are left out."""
    if not words:
        return {}
    names, centres, least = _centres(vectors)
    similarity = vectors(words) @ centres.T
    near: dict[str, tuple[str, ...]] = {}
    for word, row in zip(words, similarity, strict=True):
        nearest = np.argsort(-row, kind="stable")[:_TOPICS_A_WORD]
        said = tuple(names[topic] for topic in nearest if row[topic] >= least[topic])
        listed = tuple(name for name, members in topics().items() if word in members)
        if said or listed:
            near[word] = tuple(dict.fromkeys((*listed, *said)))
    return near


def _centres(
    vectors: Callable[[Sequence[str]], Float[ndarray, "texts d"]],
) -> tuple[list[str], Float[ndarray, "topics d"], Float[ndarray, " topics"]]:
    """Names, mean vectors of length one, and how near a word has to be."""
    names, centres, least = [], [], []
    for name, members in topics().items():
        own = vectors([name, *sorted(members)])
        total = own.sum(axis=0)
        rest = total - own[1:]
        rest /= np.linalg.norm(rest, axis=1, keepdims=True)
        names.append(name)
        centres.append(total / np.linalg.norm(total))
        least.append(np.quantile((own[1:] * rest).sum(axis=1), _QUANTILE))
    return names, np.stack(centres), np.array(least)


@cache
def _topics_digest() -> str:
    listed = {name: sorted(words) for name, words in topics().items()}
    return hashlib.sha256(json.dumps(listed, sort_keys=True).encode()).hexdigest()
