"""How alike two texts are: the cosine of their TF-IDF vectors (Salton & Buckley 1988).

Essence compares what a subject writes about an entity before and after an edit, consistency what it
writes after it with what it writes where the new object is true (Meng et al. 2022; Hernandez, Li &
Andreas 2023).
"""

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence

WORDS = re.compile(r"\w+|[^\w\s]")


def words(text: str) -> list[str]:
    """Words and marks in lower case."""
    return WORDS.findall(text.lower())


class TfIdf:
    """Vectors of words, weighted by how few of the reference texts hold them.

    idf = ln((1 + n) / (1 + df)) + 1, so that a word of every text still counts a little and one of
    no text is finite. The references are fixed before any method is judged: no method's own texts
    decide what its words are worth.
    """

    def __init__(self, references: Sequence[str]) -> None:
        self._n = len(references)
        self._holding = Counter(word for text in references for word in set(words(text)))

    def vector(self, text: str) -> Mapping[str, float]:
        """Of length 1; empty for a text without words."""
        counts = Counter(words(text))
        weighted = {word: count * self._idf(word) for word, count in counts.items()}
        length = math.sqrt(sum(value * value for value in weighted.values()))
        return {word: value / length for word, value in weighted.items()}

    def cosine(self, first: str, second: str) -> float:
        """0 where they share no word, 1 for the same words equally often."""
        one, other = self.vector(first), self.vector(second)
        return min(1.0, sum(value * other.get(word, 0.0) for word, value in one.items()))

    def _idf(self, word: str) -> float:
        return math.log((1 + self._n) / (1 + self._holding[word])) + 1
