"""Words, token features and rules of the subject with planted units.

A feature is a property of a token that its spelling, its predecessor or its place decides; a rule
is an *or* of *ands* of features and of features denied. All of it is said here once more, apart
from the vocabulary that captions are made from: a caption is right if its predictions agree with
these rules, whatever words it uses.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

DOCUMENT_START = "<|endoftext|>"
UNKNOWN = "<unk>"
OPENING, CLOSING = "\u201c", "\u201d"
NEAR = 16
"""How many tokens back something counts as near."""

GROUPS: dict[str, str] = {
    "months": "January February March April June July August September October November December",
    "weekdays": "Monday Tuesday Wednesday Thursday Friday Saturday Sunday",
    "colours": "red green blue yellow purple black white brown pink grey scarlet crimson turquoise",
    "animals": "dog cat horse cow wolf lion tiger rabbit fox sheep goat otter badger squirrel",
    "metals": "iron gold silver copper zinc tin nickel steel bronze brass titanium platinum",
    "foods": "bread butter cheese soup rice pasta cake honey apple potato onion pancake omelette",
    "vehicles": "car train bus truck bicycle ship boat airplane tram lorry motorcycle ferry",
    "body": "hand foot arm leg knee finger shoulder elbow mouth nose ankle wrist forehead",
    "instruments": "piano violin guitar flute trumpet drum cello harp clarinet banjo",
    "names": "Anna Peter Maria Thomas Helen Oscar Clara Victor Julia Martin Edith Rupert",
    "places": "London Berlin Madrid Vienna Lisbon Oslo Prague Dublin Athens Warsaw",
    "capitals": "NATO USA FBI BBC HTML DNA CEO NASA UNESCO",
    "numbers": "3 7 9 12 24 42 65 88 306 512 777 900 1848 1912 1945 1969 1987 2004 2016",
    "the": "the",
    "articles": "a an",
    "of": "of",
    "prepositions": "in with from under between near through across beside",
    "pronouns": "he she it they him her them we you",
    "conjunctions": "and or but so",
    "auxiliaries": "is was are were has had will would could",
    "negations": "not never nothing nobody",
    "participles": "walking singing reading running waiting sleeping working falling turning",
    "past": "walked opened called looked asked played waited turned carried wanted",
    "un": "unhappy unknown unusual unfair unclear unlikely unable",
    "endings": "movement payment statement judgement treatment",
    "abstract": "nation station relation condition position question section fraction",
    "adverbs": "slowly quickly barely nearly kindly softly gladly",
    "long": "extraordinary neighbourhood philosophical understanding",
    "openers": "The A He She It They We",
    "plain": "house street town road field hill river lake shore garden door window table chair "
    "wall roof day night morning hour year week man woman child friend teacher doctor farmer "
    "king queen sailor good bad big small old young new deep short high low warm cold dry "
    "wet early late very quite almost always often again soon here there now then story "
    "game word line page picture letter song name book box key lamp stone sand wind rain "
    "snow cloud star moon sun tree leaf grass flower root seed bird nest wing tail voice "
    "sound idea plan rule task test step path gate bridge tower coin price shop market bag "
    "rope nail hammer saddle vinegar candle mirror button ribbon pencil pocket blanket "
    "basket barrel ladder anchor engine wheel handle ticket bottle glass cup plate spoon "
    "knife fork bowl pan stove oven lock fence",
    "cyrillic": "\u043d\u0435 \u0434\u043e\u043c \u0432\u043e\u0434\u0430 \u043c\u0438\u0440 "
    "\u043b\u0435\u0441 \u0445\u043b\u0435\u0431",
    "chinese": "\u4e2d \u56fd \u5c71 \u6c34 \u4eba \u5927",
    "greek": "\u03bb\u03cc\u03b3\u03bf\u03c2 \u03bd\u03b5\u03c1\u03cc \u03c6\u03c9\u03c2",
    "stops": ". ?",
    "commas": ",",
    "semicolons": ": ;",
    "currency": "$ \u20ac",
    "opening": OPENING,
    "closing": CLOSING,
}
SHARES: dict[str, float] = {
    "the": 0.05,
    "articles": 0.03,
    "of": 0.03,
    "prepositions": 0.05,
    "metals": 0.004,
    "colours": 0.02,
    "animals": 0.02,
    "pronouns": 0.05,
    "conjunctions": 0.03,
    "auxiliaries": 0.05,
    "negations": 0.012,
    "numbers": 0.03,
    "openers": 0.006,
    "stops": 0.05,
    "commas": 0.03,
    "semicolons": 0.008,
    "currency": 0.006,
    "opening": 0.012,
    "closing": 0.14,
    "plain": 0.3,
    "long": 0.008,
}
"""How often a word of the group is drawn; of the other groups each in `OTHER_SHARE`. A closing
quotation mark is drawn only inside quotation marks, an opening one only outside."""
OTHER_SHARE = 0.013


class Tokens(NamedTuple):
    """A tokenised text as the rules see it."""

    words: tuple[str, ...]

    def holding(self, test: Callable[[str], bool]) -> npt.NDArray[np.bool_]:
        """The tokens of which `test` is true."""
        return np.array([test(word) for word in self.words], dtype=bool)


class Lexicon(NamedTuple):
    """Every word and what it is drawn with; ids are positions in `words`."""

    words: tuple[str, ...]
    shares: tuple[float, ...]
    groups: dict[str, tuple[str, ...]]


def make_lexicon() -> Lexicon:
    """All words of all groups, each once."""
    groups = {name: tuple(words.split()) for name, words in GROUPS.items()}
    words: dict[str, float] = {DOCUMENT_START: 0.0, UNKNOWN: 0.0}
    for name, members in groups.items():
        for word in members:
            words.setdefault(word, SHARES.get(name, OTHER_SHARE) / len(members))
    return Lexicon(tuple(words), tuple(words.values()), groups)


class Feature(NamedTuple):
    """A property of tokens, by how the network finds it out."""

    name: str
    how: str
    """'token', 'previous' (the same of the token before), 'first' (of so many), 'quoted', 'near'
    (a token of the kind stands here or up to `NEAR` before)."""
    test: Callable[[str], bool] = str.isspace
    limit: int = 0

    def holds(self, tokens: Tokens) -> npt.NDArray[np.bool_]:
        """Where in a text the feature holds."""
        match self.how:
            case "token":
                return tokens.holding(self.test)
            case "previous":
                return np.concatenate([[False], tokens.holding(self.test)[:-1]])
            case "first":
                return np.arange(len(tokens.words)) < self.limit
            case "quoted":
                return _quoted(tokens)
            case "near":
                return _near(tokens.holding(self.test))
        raise ValueError(self.how)


def _quoted(tokens: Tokens) -> npt.NDArray[np.bool_]:
    """The last quotation mark up to here is an opening one; true at that mark itself."""
    inside, column = False, []
    for word in tokens.words:
        inside = word == OPENING or (inside and word != CLOSING)
        column.append(inside)
    return np.array(column, dtype=bool)


def _near(column: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    places = np.arange(len(column))
    last = np.maximum.accumulate(np.where(column, places, -10 * NEAR))
    return places - last <= NEAR


class Rule(NamedTuple):
    """An *or* of clauses; a clause is an *and* of features, `!name` denies one."""

    clauses: tuple[tuple[str, ...], ...]

    def holds(self, tokens: Tokens, features: dict[str, Feature]) -> npt.NDArray[np.bool_]:
        """Where in a text the rule holds."""
        found = np.zeros(len(tokens.words), dtype=bool)
        for clause in self.clauses:
            columns = [
                ~features[name[1:]].holds(tokens)
                if name.startswith("!")
                else features[name].holds(tokens)
                for name in clause
            ]
            found |= np.stack(columns).all(axis=0)
        return found


def rule(text: str) -> Rule:
    """The rule that `text` spells: 'months | numbers & !years'."""
    return Rule(tuple(tuple(clause.split(" & ")) for clause in text.split(" | ")))


def is_one_of(words: Sequence[str]) -> Callable[[str], bool]:
    """The token is one of `words`, as it is written."""
    return frozenset(words).__contains__
