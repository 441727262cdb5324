"""`search_neurons`: units by concept, among the captions that were stored for the subject.

A caption is near a concept if their embeddings are closer than chance: the concept's words are
replaced by as many others, drawn from a list of a few thousand nouns, and the caption's similarity
to a hundred such phrases is what it is held against.
"""

import json
import re
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from jaxtyping import Float
from numpy import ndarray
from pydantic import Field

from dragoman.core.errors import ToolError, UserError
from dragoman.core.escaping import visible
from dragoman.core.records import JsonObject, Measurement, ToolSuccess
from dragoman.tools.captioning.atlas import Atlas, AtlasEntry, Embed, Holdings
from dragoman.tools.captioning.rows import RowKind
from dragoman.tools.context import ToolContext
from dragoman.tools.embedding import Embedder
from dragoman.tools.registry import tool
from dragoman.tools.statistics import mean
from dragoman.tools.weights import EMBEDDINGS

CONTROL = "the same captions and as many words drawn at random in place of the concept's"
LEAST_SIMILARITY, LEAST_DEVIATIONS = 0.4, 2.0
"""A caption is near a concept above this cosine, and so many standard deviations above its control.

Chosen by `python -m dragoman.evals.caption_search` on half of the vocabulary's topics, so that at
most one in a hundred captions of other topics passes; docs/evals/caption_search.md has what they
find on the other half. Those captions are templates filled from word lists: how often the
thresholds err on captions in a chat model's own words was not measured.
"""
_N_SHUFFLED = 100
_FRAME = re.compile(
    r"""
    (?: tokens[ ]right[ ](?:after|before) | words[ ]about | words[ ]that[ ]have[ ]to[ ]do[ ]with
      | text[ ]about | text[ ]that[ ]has[ ]to[ ]do[ ]with | the[ ](?:words?|tokens?)[ ](?=")
      | ["\u201c\u201d] ) \s*
    """,
    re.VERBOSE,
)
"""What the templates of `predicates.phrase` put around words and topics."""
_SHOWN_FAR = 3

Outcome = Literal["found", "nothing found", "not searched"]


class Match(NamedTuple):
    """A unit, and how near one of its captions is to the concept."""

    entry: AtlasEntry
    text: str
    similarity: float
    baseline: float
    """Mean similarity of the same text to words drawn at random."""
    near: bool


class Found(NamedTuple):
    """The outcome of a search; `matches` holds the near ones, or else the nearest three."""

    outcome: Outcome
    matches: tuple[Match, ...]
    holdings: Holdings
    n_near: int


def stored_captions(home: Path, subject_digest: str, arguments: JsonObject) -> str:
    """Digest of the captions that a call searches; '' for a call without a concept."""
    return "" if arguments.get("concept") is None else Atlas(home, subject_digest).digest()


@tool(method="captioning", subjects=("language", "vision"), reads=stored_captions)
def search_neurons(
    context: ToolContext,
    concept: Annotated[
        str, Field(min_length=1, max_length=200, description="What the units should respond to.")
    ],
    k: Annotated[int, Field(ge=1, le=100, description="How many units at most.")] = 10,
    layer: Annotated[
        int | None, Field(ge=0, description="Only units of this layer; all without it.")
    ] = None,
    kind: Annotated[
        Literal["mlp", "resid", "head", "latent", "channel"] | None,
        Field(description="Only units of this kind; all without it."),
    ] = None,
) -> ToolSuccess:
    """Find units whose captions are near a concept, among those captioned before.

    Answers: which neurons respond to months? It searches the captions that `dragoman caption` and
    caption_neurons have stored for this very subject, and says "not searched" where none are stored
    and "nothing found" where none is near. Each similarity stands beside the same caption's
    similarity to random words. A caption that matches is no proof that the unit matters.
    """
    found = search(context, concept, k=k, layer=layer, kind=kind)
    n_units, captioned = len(found.holdings.entries), len(found.holdings.captioned)
    output: JsonObject = {
        "concept": concept,
        "outcome": found.outcome,
        "units": [_told(match) for match in found.matches if match.near],
        "nearest_rejected": [_told(match) for match in found.matches if not match.near],
        "n_near": found.n_near,
        "n_units_searched": n_units,
        "n_captions_searched": captioned,
        "n_sources": found.holdings.n_sources,
    }
    caveats = [f"{name} of the atlas could not be read" for name in found.holdings.damaged]
    if found.outcome == "found":
        caveats.append("Only units that were captioned before were searched.")
    return ToolSuccess(
        summary=_summary(context, visible(concept, one_line=True), found),
        measurements=_measurements(context, concept, found),
        output=output,
        caveats=tuple(caveats),
    )


def search(
    context: ToolContext,
    concept: str,
    *,
    k: int,
    layer: int | None = None,
    kind: RowKind | None = None,
    dictionary: str | None = None,
) -> Found:
    """The `k` units nearest to `concept`, best first; `ToolError` without embedder weights.

    `dictionary` narrows the search to latents of one autoencoder, by the name in its entries.
    """
    atlas = Atlas(context.home, context.network.identity.digest)
    holdings = atlas.holdings()
    entries = tuple(
        entry
        for entry in holdings.entries
        if layer in (None, entry.layer)
        and kind in (None, entry.kind)
        and dictionary in (None, entry.dictionary)
    )
    holdings = holdings._replace(entries=entries)
    captioned = holdings.captioned
    if not captioned:
        return Found("nothing found" if entries else "not searched", (), holdings, 0)
    embed = _embedder(context)
    texts = list(dict.fromkeys(text for entry in captioned for text in entry.texts))
    vectors = atlas.vectors(
        [gist(text) for text in texts],
        embed,
        lambda done, total: context.step(done, total, "reading stored captions"),
    )
    found = nearness(concept, vectors, embed, context.seed)
    columns = (found.similarity.tolist(), found.baseline.tolist(), found.near().tolist())
    judged = dict(zip(texts, zip(*columns, strict=True), strict=True))
    matches = []
    for entry in captioned:
        best = max(entry.texts, key=lambda text: judged[text][0])
        matches.append(Match(entry, best, *judged[best]))
    matches.sort(key=lambda match: (not match.near, -match.similarity, -(match.entry.score or 0)))
    near = sum(match.near for match in matches)
    shown = matches[: min(k, near)] if near else matches[:_SHOWN_FAR]
    return Found("found" if near else "nothing found", tuple(shown), holdings, near)


class Nearness(NamedTuple):
    """Captions beside a concept, and beside as many words drawn at random."""

    similarity: Float[ndarray, " texts"]
    baseline: Float[ndarray, " texts"]
    """Mean similarity to the random words."""
    deviations: Float[ndarray, " texts"]
    """By how many standard deviations of the latter the similarity is above it."""

    def near(
        self,
        least_similarity: float = LEAST_SIMILARITY,
        least_deviations: float = LEAST_DEVIATIONS,
    ) -> npt.NDArray[np.bool_]:
        """Which captions pass for being about the concept."""
        return np.asarray(
            (self.similarity >= least_similarity) & (self.deviations > least_deviations)
        )


def nearness(concept: str, vectors: Float[ndarray, "texts d"], embed: Embed, seed: int) -> Nearness:
    """How near captions, as vectors of length one, are to `concept`."""
    asked = np.asarray(embed([concept, *_shuffled(concept, seed)]), np.float32)
    similarities: Float[ndarray, "texts phrases"] = vectors @ asked.T
    own, control = similarities[:, 0], similarities[:, 1:]
    centre, spread = control.mean(axis=1), control.std(axis=1)
    return Nearness(own, centre, (own - centre) / np.maximum(spread, 1e-9))


def gist(caption: str) -> str:
    """What a caption is about, without the words that all captions share: those make any two alike.

    'words about food and drink' is nearer to 'bread' when it reads 'food and drink'.
    """
    return " ".join(_FRAME.sub(" ", caption).split()) or caption


def _shuffled(concept: str, seed: int) -> list[str]:
    """Phrases of as many words as the concept has, none of them its own.

    The same ones for all concepts of a length, so that an embedder may remember them.
    """
    own = {word.casefold() for word in concept.split()}
    generator = np.random.default_rng([seed, 7])
    length = max(1, len(concept.split()))
    phrases: list[str] = []
    while len(phrases) < _N_SHUFFLED:
        words = [str(word) for word in generator.choice(_words(), length)]
        if not own.intersection(words):
            phrases.append(" ".join(words))
    return phrases


@cache
def _words() -> tuple[str, ...]:
    text = resources.files("dragoman.tools").joinpath("data/captioning/topics.json")
    listed: dict[str, list[str]] = json.loads(text.read_text("utf-8"))
    return tuple(sorted({word for words in listed.values() for word in words}))


def _embedder(context: ToolContext) -> Embedder:
    try:
        return Embedder(context.weights_folder / EMBEDDINGS)
    except UserError as error:
        raise ToolError(str(error)) from None


def _told(match: Match) -> dict[str, Any]:
    entry = match.entry
    whose = {"dictionary": entry.dictionary} if entry.dictionary else {}
    return {
        **whose,
        "unit": entry.name,
        "kind": entry.kind,
        "layer": entry.layer,
        "index": entry.unit,
        "caption": entry.caption,
        "matched": match.text,
        "score": entry.score,
        "floor": entry.floor,
        "similarity": round(match.similarity, 4),
        "baseline": round(match.baseline, 4),
    }


def _measurements(context: ToolContext, concept: str, found: Found) -> tuple[Measurement, ...]:
    near = [match for match in found.matches if match.near]
    if not near:
        return ()
    return (
        mean(
            "similarity",
            [match.similarity for match in near],
            unit="cosine",
            baseline_samples=[match.baseline for match in near],
            control=CONTROL,
            seed=context.seed,
        ),
    )


def _summary(context: ToolContext, concept: str, found: Found) -> str:
    holdings, name = found.holdings, context.network.identity.name
    if found.outcome == "not searched":
        return (
            f"not searched: no captions of {name} are stored that fit; "
            "caption_neurons or `dragoman caption` makes some"
        )
    searched = f"{len(holdings.captioned)} captions of {len(holdings.entries)} units searched"
    if found.outcome == "nothing found":
        if not found.matches:
            return f"nothing found: none of {len(holdings.entries)} units has a caption"
        nearest = found.matches[0]
        return (
            f"nothing found: no caption is near {concept!r}; the nearest, "
            f"{nearest.text!r} of {nearest.entry.name}, is no nearer than chance ({searched})"
        )
    told = "; ".join(f"{match.entry.name}: {match.text}" for match in found.matches[:3])
    return f"{found.n_near} units have a caption near {concept!r}: {told} ({searched})"
