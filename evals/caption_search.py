"""When is a stored caption near to a concept? The thresholds of `search_neurons`, measured.

    python -m dragoman.evals.caption_search --out docs/evals/caption_search.md

Captions as the predicate search words them are made from the word lists of half of the topics, and
asked for by the topic's name and by words of its list that stand in none of its captions. A caption
of the same topic should be found, one of another topic or of none should not; topics that share
words (cities and countries) count as others, so the rate of false finds is an upper estimate.
Thresholds are chosen on every second topic and reported on the rest.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from dragoman.core.files import write_atomic
from dragoman.core.settings import Settings
from dragoman.tools.captioning.atlas import Embed
from dragoman.tools.captioning.predicates import (
    After,
    Kind,
    Like,
    Near,
    Topic,
    Word,
    either,
    phrase,
)
from dragoman.tools.captioning.search import (
    LEAST_DEVIATIONS,
    LEAST_SIMILARITY,
    Nearness,
    gist,
    nearness,
)
from dragoman.tools.captioning.vocabulary import classes, topics
from dragoman.tools.embedding import Embedder
from dragoman.tools.statistics import wilson
from dragoman.tools.weights import EMBEDDINGS

MOST_FALSE = 0.01
"""Of captions of other topics, those that may be found: one in a hundred."""
SIMILARITIES = tuple(round(0.2 + 0.05 * step, 2) for step in range(9))
DEVIATIONS = (0.0, 1.0, 2.0, 3.0, 4.0)
_WORDS_A_CAPTION, _LITERAL_CAPTIONS, _CONCEPTS = 3, 3, 3
KINDS = ("named", "listed")


class Caption(NamedTuple):
    """A caption, the topic it is about, and how it says so."""

    text: str
    topic: str
    """'' for a caption of another sort, such as words that end in -ing."""
    kind: str
    """named: the topic's name stands in it; listed: some of its words do."""


class Asked(NamedTuple):
    """A concept that somebody looks for."""

    text: str
    topic: str
    nearness: Nearness


class Rates(NamedTuple):
    """How often captions are found, right ones by kind and wrong ones."""

    found: dict[str, tuple[int, int]]
    false: tuple[int, int]

    @property
    def recall(self) -> float:
        """Of the right captions, of all kinds together."""
        return sum(n for n, _ in self.found.values()) / sum(n for _, n in self.found.values())

    @property
    def false_rate(self) -> float:
        """Of captions that are not about the concept."""
        return self.false[0] / self.false[1]


def captions(seed: int) -> tuple[list[Caption], dict[str, list[str]]]:
    """Captions of every topic and of every token class; and for each topic, concepts to ask for."""
    made: list[Caption] = []
    concepts: dict[str, list[str]] = {}
    for topic, members in topics().items():
        generator = np.random.default_rng([seed, len(made)])
        words = [str(word) for word in generator.permutation(sorted(members))]
        used = words[: _WORDS_A_CAPTION * _LITERAL_CAPTIONS]
        concepts[topic] = [topic, *words[len(used) : len(used) + _CONCEPTS]]
        named = (Topic(name=topic), Like(topic=topic), Near(topic=topic))
        made += [Caption(phrase(each), topic, "named") for each in named]
        made.append(Caption(phrase(After(of=named[0])), topic, "named"))
        for start in range(0, len(used) - _WORDS_A_CAPTION + 1, _WORDS_A_CAPTION):
            first, second, third = (Word(word=word) for word in used[start : start + 3])
            listed = either(either(first, second), third)
            made.append(Caption(phrase(listed), topic, "listed"))
    made += [Caption(phrase(Kind(name=name)), "", "class") for name in classes()]
    return made, concepts


def asked(
    made: Sequence[Caption], concepts: dict[str, list[str]], embed: Embed, seed: int
) -> list[Asked]:
    """Every concept beside every caption."""
    vectors = np.asarray(embed([gist(caption.text) for caption in made]), np.float32)
    return [
        Asked(concept, topic, nearness(concept, vectors, embed, seed))
        for topic, listed in concepts.items()
        for concept in listed
    ]


def rates(
    made: Sequence[Caption], questions: Sequence[Asked], similarity: float, deviations: float
) -> Rates:
    """What a pair of thresholds finds."""
    topic_of = np.array([caption.topic for caption in made])
    kind_of = np.array([caption.kind for caption in made])
    found = {kind: [0, 0] for kind in KINDS}
    false = [0, 0]
    for question in questions:
        near: npt.NDArray[np.bool_] = question.nearness.near(similarity, deviations)
        own = topic_of == question.topic
        for kind, counted in found.items():
            counted[0] += int(near[own & (kind_of == kind)].sum())
            counted[1] += int((own & (kind_of == kind)).sum())
        false[0] += int(near[~own].sum())
        false[1] += int((~own).sum())
    return Rates({kind: (n, of) for kind, (n, of) in found.items()}, (false[0], false[1]))


def choose(made: Sequence[Caption], questions: Sequence[Asked]) -> tuple[float, float]:
    """The thresholds that find most of the right captions and no more wrong ones than allowed."""
    tried = [
        (rates(made, questions, similarity, deviations), similarity, deviations)
        for similarity in SIMILARITIES
        for deviations in DEVIATIONS
    ]
    allowed = [each for each in tried if each[0].false_rate <= MOST_FALSE]
    best = max(allowed or tried[-1:], key=lambda each: (each[0].recall, -each[0].false_rate))
    return best[1], best[2]


def render(rows: Sequence[tuple[str, float, float, Rates]], n_questions: int) -> str:
    """The page."""
    lines = [
        "# When a caption is near to a concept",
        "",
        "`search_neurons` calls a caption near to a concept above a cosine, and so many standard",
        "deviations above its similarity to random words. Captions in the words of the predicate",
        "search are asked for by their topic's name and by words of the topic that they do not "
        "hold.",
        f"Thresholds were chosen on every second topic, to let at most {MOST_FALSE:.1%} of other",
        f"captions through; this is measured on the other topics ({n_questions} concepts).",
        "Topics that share words count as different, so false finds are an upper estimate.",
        "Intervals are Wilson's, 95%.",
        "",
        "| thresholds | cosine | deviations | found, topic named | found, three of its words | "
        "found, not about it |",
        "|---|---:|---:|---|---|---|",
    ]
    for name, similarity, deviations, each in rows:
        cells = [_share(*each.found[kind]) for kind in KINDS] + [_share(*each.false)]
        lines.append(f"| {name} | {similarity:.2f} | {deviations:.0f} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", "Made by `python -m dragoman.evals.caption_search`.", ""])


def _share(count: int, n: int) -> str:
    low, high = wilson(count, n)
    return f"{count / n:.3f} [{low:.3f}, {high:.3f}] of {n}"


def _remembering(embed: Embed) -> Embed:
    """Every concept is held against the same random words."""
    known: dict[str, list[float]] = {}

    def embedded(texts: list[str]) -> list[list[float]]:
        new = [text for text in dict.fromkeys(texts) if text not in known]
        if new:
            known.update(zip(new, embed(new), strict=True))
        return [known[text] for text in texts]

    return embedded


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the eval; 0 when the thresholds in use are those that are chosen, else 1."""
    parser = argparse.ArgumentParser(
        prog="python -m dragoman.evals.caption_search",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="write the table to this Markdown file")
    options = parser.parse_args(arguments)
    embed = _remembering(Embedder(Settings().weights_folder / EMBEDDINGS))
    made, concepts = captions(options.seed)
    questions = asked(made, concepts, embed, options.seed)
    choosing = set(list(topics())[::2])
    own = [each for each in questions if each.topic in choosing]
    others = [each for each in questions if each.topic not in choosing]
    chosen = choose(made, own)
    used = (LEAST_SIMILARITY, LEAST_DEVIATIONS)
    page = render(
        [
            (name, *pair, rates(made, others, *pair))
            for name, pair in (("in use", used), ("chosen", chosen))
        ],
        len(others),
    )
    sys.stdout.write(page)
    if options.out is not None:
        write_atomic(options.out, page)
    return 0 if chosen == used else 1


if __name__ == "__main__":
    sys.exit(main())
