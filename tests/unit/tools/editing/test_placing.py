"""Edits in any text: where they act, that they add up, and that generation applies them once."""

import pytest
import tokenizers
import torch
import transformers
from torch import Tensor

from dragoman.core.errors import ToolError
from dragoman.core.records import Site
from dragoman.tools.editing.placing import (
    Occurrence,
    Placement,
    Tokens,
    entity_tokens,
    occurrences,
    place,
    shared_token,
)
from dragoman.tools.subjects.language import LanguageSubject

TEXT = "France is France and not Japan"


def _vector(subject: LanguageSubject, seed: int) -> Tensor:
    return 3 * torch.randn(subject.d_model, generator=torch.Generator().manual_seed(seed))


def test_occurrences_are_whole_words() -> None:
    assert occurrences("man, woman, man", "man") == [(0, 3), (12, 15)]
    assert occurrences("woman", "man") == occurrences("man", "") == []
    assert occurrences("(C++) is C++", "C++") == [(1, 4), (9, 12)]


@pytest.mark.parametrize(
    ("occurrence", "tokens", "ends"),
    [("first", "last", [6]), ("last", "last", [16]), ("all", "last", [6, 16])],
)
def test_first_last_and_all_occurrences(
    any_tiny: LanguageSubject, occurrence: Occurrence, tokens: Tokens, ends: list[int]
) -> None:
    found = entity_tokens(any_tiny, TEXT, "France", occurrence, tokens)
    assert found == [any_tiny.last_token(TEXT, end) for end in ends]


def test_all_tokens_of_an_entity_cover_it(any_tiny: LanguageSubject) -> None:
    text = "The capital of A dog is"
    start = text.index("A dog")
    first, last = any_tiny.token_span(text, start, start + len("A dog"))
    found = entity_tokens(any_tiny, text, "A dog", "first", "all")
    assert found == list(range(first, last + 1))
    assert len(found) > 1
    assert entity_tokens(any_tiny, text, "A dog") == [last]


def test_several_edits_of_a_batch_act_where_they_belong(any_tiny: LanguageSubject) -> None:
    one, two = _vector(any_tiny, 1), _vector(any_tiny, 2)
    placements = [
        [
            Placement("France", 1, one, "all"),
            Placement("Japan", 1, two),
            Placement("Japan", 1, one),
        ],
        [Placement("A dog", 0, two)],
        [],
    ]
    texts = [TEXT, "A dog is", "Japan is"]
    edits = place(any_tiny, texts, placements)
    assert [edit.site.layer for edit in edits] == [0, 1]
    batch, site = any_tiny.batch(texts), Site(layer=1)
    with torch.no_grad():
        lower = any_tiny.activations(batch, [site], edits[:1])[site]
        both = any_tiny.activations(batch, [site], edits)[site]
    expected = torch.zeros_like(both)
    for end in (6, 16):
        expected[0, any_tiny.last_token(TEXT, end)] += one
    # Two attributes of one entity add up.
    expected[0, any_tiny.last_token(TEXT, len(TEXT))] += one + two
    torch.testing.assert_close(both - lower, expected, atol=1e-4, rtol=1e-4)
    plain = any_tiny.activations(batch, [site])[site]
    assert float((lower - plain)[1].abs().max()) > 1e-3
    torch.testing.assert_close(both[2], plain[2])


def test_a_name_that_is_generated_is_not_edited(any_tiny: LanguageSubject) -> None:
    edits = place(any_tiny, ["France is"], [[Placement("France", 1, _vector(any_tiny, 1), "all")]])
    seen: list[int] = []

    def counting(activations: Tensor) -> Tensor:
        seen.append(activations.shape[1])
        return edits[0].apply(activations)

    any_tiny.generate(["France is"], 6, edits=[edits[0]._replace(apply=counting)])
    assert seen == [len(any_tiny.token_ids("France is"))]


@pytest.mark.parametrize(
    ("text", "entity", "message"),
    [
        ("Japan is", "France", "does not occur"),
        ("Japanese", "Japan", "only inside another word"),
        ("Japan is", "", "does not occur"),
    ],
)
def test_an_entity_that_is_not_there(
    tiny_subject: LanguageSubject, text: str, entity: str, message: str
) -> None:
    with pytest.raises(ToolError, match=message):
        entity_tokens(tiny_subject, text, entity)


def test_a_layer_out_of_range(tiny_subject: LanguageSubject) -> None:
    direction = _vector(tiny_subject, 1)
    with pytest.raises(ToolError, match=r"layer 41 is outside 0\.\."):
        place(tiny_subject, [TEXT], [[Placement("France", 41, direction)]])


@pytest.fixture
def joined(tiny_subject: LanguageSubject) -> LanguageSubject:
    """The tiny subject with a vocabulary in which one token reaches over a hyphen."""
    letters = sorted(set("France-Germany and Japan is"))
    pieces = [*((letter, -5.0) for letter in letters), ("ce-Ger", -1.0), ("Japan", -1.0)]
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizers.Tokenizer(tokenizers.models.Unigram([("?", -9.0), *pieces], 0)),
        eos_token="?",
    )
    return LanguageSubject(tiny_subject.model, tokenizer, "joined")


def test_a_token_that_crosses_the_edge_of_a_word_is_refused(joined: LanguageSubject) -> None:
    text = "France-Germany and Japan"
    for entity in ("France", "Germany"):
        with pytest.raises(ToolError, match=rf"'{entity}' shares the token 'ce-Ger' with another"):
            entity_tokens(joined, text, entity)
        placement = Placement(entity, 1, _vector(joined, 0))
        with pytest.raises(ToolError, match="put a space between them"):
            place(joined, [text], [[placement]])
    # Both words together, and words beside them, are nobody else's.
    assert entity_tokens(joined, text, "France-Germany") == [joined.last_token(text, 14)]
    assert entity_tokens(joined, text, "Japan") == [-1]
    assert shared_token(joined, "France is", 0, 6) is None
