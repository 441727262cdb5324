"""Sets of a vocabulary's tokens: what a caption names, and what it has nothing to do with."""

from weakref import WeakKeyDictionary

import numpy as np
from jaxtyping import Bool
from numpy import ndarray

from dragoman.tools.captioning.predicates import Kind, Predicate, Topic, holds
from dragoman.tools.captioning.tokens import TokenTable, token_table
from dragoman.tools.captioning.vocabulary import classes, topics
from dragoman.tools.context import ToolContext
from dragoman.tools.subjects.language import LanguageSubject

_NAMEABLE = 0.1
"""A predicate that holds of more of the vocabulary than this names no words in particular."""
_SHARED = 0.1
"""The share of tokens in common above which sets are related."""


def vocabulary_table(subject: LanguageSubject) -> TokenTable:
    """Each token of the vocabulary as a text of its own; document numbers are token ids.

    Made once for a subject: it takes seconds, and a batch asks for it group by group.
    """
    table = _VOCABULARIES.get(subject)
    if table is None:
        special = set(subject.tokenizer.all_special_ids)
        texts = [
            "" if token in special else subject.token_text(token)
            for token in range(subject.d_vocab)
        ]
        table = _VOCABULARIES[subject] = token_table(texts, subject.tokenizer)
    return table


def named_tokens(
    subject: LanguageSubject, predicate: Predicate | None
) -> Bool[ndarray, " d_vocab"] | None:
    """The tokens of which a predicate holds; None where it names none, or too many."""
    if predicate is None:
        return None
    table = vocabulary_table(subject)
    chosen = np.zeros(subject.d_vocab, dtype=bool)
    chosen[table.document[holds(predicate, table)]] = True
    # Hardly any two units are said to name the same: what each adds is not kept.
    table.columns.clear()
    return chosen if 0 < chosen.mean() < _NAMEABLE else None


def word_sets(context: ToolContext) -> Bool[ndarray, "sets d_vocab"]:
    """The topics and the classes of words that captions are made of, as tokens. Made once."""
    subject = context.subject
    sets = _WORD_SETS.get(subject)
    if sets is None:
        # A class that is a place in a text says nothing of a token.
        kinds = [Kind(name=name) for name, each in classes().items() if not each.place]
        atoms: list[Predicate] = [*(Topic(name=name) for name in topics()), *kinds]
        named = []
        for place, atom in enumerate(atoms):
            context.step(place, len(atoms), "looking up words in the vocabulary")
            named.append(named_tokens(subject, atom))
        chosen = [each for each in named if each is not None]
        # Where few tokens hold digits, several classes of numbers are the same.
        sets = np.unique(np.array(chosen, bool).reshape(len(chosen), subject.d_vocab), axis=0)
        _WORD_SETS[subject] = sets
    return sets


def unrelated_sets(
    context: ToolContext, named: Bool[ndarray, " d_vocab"]
) -> Bool[ndarray, "sets d_vocab"]:
    """Those of `word_sets` with hardly a token in common with `named`."""
    sets = word_sets(context)
    unrelated: ndarray = sets[~related(sets, named)]
    return unrelated


def related(
    sets: Bool[ndarray, "sets d_vocab"], named: Bool[ndarray, " d_vocab"]
) -> Bool[ndarray, " sets"]:
    """Which sets have more than a tenth of their tokens, or of `named`, in common with it."""
    common = (sets & named).sum(axis=1)
    found: ndarray = common > _SHARED * np.minimum(sets.sum(axis=1), named.sum())
    return found


_VOCABULARIES: WeakKeyDictionary[LanguageSubject, TokenTable] = WeakKeyDictionary()
_WORD_SETS: WeakKeyDictionary[LanguageSubject, Bool[ndarray, "sets d_vocab"]] = WeakKeyDictionary()
