"""A language subject with sixty neurons whose rules are known, and a twin with random weights.

A Llama of three blocks, its weights written down, not trained. In a hidden basis, spread over all
of `d_model` by a random rotation, attention of block 0 fetches what a rule needs of the context
(features of the token before, the place in the text, the last quotation mark, a metal nearby); the
MLPs of blocks 0 and 1 make features and conjunctions of it, 0 or 1 each; the MLP of block 2 holds
the units. A unit fires at the tokens of which its rule holds, by a strength that varies from word
to word, and is exactly 0 at all others. Beside each unit stands its *rival*, a neuron whose rule
is nearly the same: a caption that takes one for the other is wrong.

The texts that the subject writes have its words in known shares, quotation marks that close, and
more capitals after a full stop. The *random twin* has the same numbers in every weight matrix, in
random order: its neurons are functions of the text too, but of none that was planted.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from dragoman.tools.subjects.language import LanguageSubject
from dragoman.tools.subjects.planted_llama import llama_state, make_llama, orthogonal, turn
from dragoman.tools.subjects.planted_units_rules import Planned, plan
from dragoman.tools.subjects.planted_units_words import (
    CLOSING,
    DOCUMENT_START,
    NEAR,
    OPENING,
    UNKNOWN,
    Lexicon,
    Rule,
    Tokens,
    make_lexicon,
)

UNIT_LAYER = 2
N_LAYERS, N_HEADS, D_HEAD, D_MODEL, D_MLP = 3, 4, 64, 256, 160
_PREVIOUS, _UNIFORM, _LAST_QUOTE, _NEAR = range(4)
"""The heads of block 0, by what they attend to."""
_RECENCY_PAIR = 11
"""A rotary pair that turns by half a radian over the longest text: later is nearer."""
_RECENCY_NATS = 1000.0
_NEVER = -30.0
_SAMPLED_AT = 0.9
"""The temperature of sampled corpora: logits are scaled so that shares come out as they are."""
_AFTER_STOP = 3.5
"""By how many nats a capitalised function word is likelier after a full stop."""
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class PlantedUnits:
    """The subject, its random twin, and the rules of the units by neuron of `UNIT_LAYER`."""

    subject: LanguageSubject
    random_twin: LanguageSubject
    planned: Planned
    neurons: tuple[int, ...]
    """Of the units, in the order of `planned.units`."""
    rivals: tuple[int, ...]
    """Of their rivals."""

    def holds(self, rule: Rule, words: list[str]) -> npt.NDArray[np.bool_]:
        """Where in a text, given word by word, the rule holds."""
        return rule.holds(Tokens(tuple(words)), self.planned.features)


def plant_units(seed: int = 0) -> PlantedUnits:
    """Write down the subject and its twin; equal seeds give equal weights, to the bit."""
    generator = np.random.default_rng([seed, 60])
    lexicon = make_lexicon()
    planned = plan(lexicon, generator)
    places = generator.permutation(D_MLP)
    n = len(planned.units)
    neurons, rivals = places[:n].tolist(), places[n : 2 * n].tolist()
    weights = _Weights(lexicon, planned, neurons, rivals, generator)
    tokenizer = _tokenizer(lexicon)
    state = weights.tensors()
    name = f"planted units (seed {seed})"
    return PlantedUnits(
        LanguageSubject(make_llama(state, n_layers=N_LAYERS, d_head=D_HEAD), tokenizer, name),
        LanguageSubject(
            make_llama(_shuffled(state, generator), n_layers=N_LAYERS, d_head=D_HEAD),
            tokenizer,
            f"{name}, random twin",
        ),
        planned,
        tuple(neurons),
        tuple(rivals),
    )


class _Weights:
    """The network in its hidden basis. Readers are [out, residual], writers [residual, in]."""

    def __init__(
        self,
        lexicon: Lexicon,
        planned: Planned,
        neurons: list[int],
        rivals: list[int],
        generator: np.random.Generator,
    ) -> None:
        self._lexicon, self._features = lexicon, planned.features
        self._generator = generator
        self._at: dict[str, int] = {}
        for name in ("constant", "start", "strength", "place", "mark", "metal near"):
            self._dimension(name)
        for feature in planned.features.values():
            self._dimension(feature.name)
        self.embedding = np.zeros((len(lexicon.words), D_MODEL))
        self.unembedding = np.zeros((len(lexicon.words), D_MODEL))
        width = N_HEADS * D_HEAD
        shapes = {"q": (width, D_MODEL), "k": (width, D_MODEL), "v": (width, D_MODEL)}
        shapes |= {"o": (D_MODEL, width), "gate": (D_MLP, D_MODEL), "up": (D_MLP, D_MODEL)}
        shapes |= {"down": (D_MODEL, D_MLP)}
        self.layers = [{name: np.zeros(shape) for name, shape in shapes.items()} for _ in range(3)]
        for layer in self.layers[:2]:
            layer["up"][:, self._at["constant"]] = 1.0
        self._embed()
        self._attend()
        self._sharpen()
        units = planned.units
        self._place([(each.rule, row) for each, row in zip(units, neurons, strict=True)])
        self._place([(each.rival, row) for each, row in zip(units, rivals, strict=True)])
        self._unembed()
        self.rotation = orthogonal(D_MODEL, generator)

    def _dimension(self, name: str) -> int:
        """The residual's dimension of that name; a new one the first time."""
        return self._at.setdefault(name, len(self._at))

    def _embed(self) -> None:
        table, words = self.embedding, Tokens(self._lexicon.words)
        table[:, self._at["constant"]] = 1.0
        table[self._lexicon.words.index(DOCUMENT_START), self._at["start"]] = 1.0
        table[:, self._at["strength"]] = self._generator.uniform(0.8, 1.2, len(table))
        for feature in self._features.values():
            if feature.how == "token":
                table[:, self._at[feature.name]] = words.holding(feature.test)

    def _attend(self) -> None:
        layer, at = self.layers[0], self._at
        for pair in range(4):
            angle = -turn(pair, D_HEAD)
            layer["q"][_PREVIOUS * D_HEAD + pair, at["constant"]] = 60 * math.cos(angle)
            layer["q"][_PREVIOUS * D_HEAD + pair + D_HEAD // 2, at["constant"]] = 60 * math.sin(
                angle
            )
            layer["k"][_PREVIOUS * D_HEAD + pair, at["constant"]] = 1.0
        before = [each for each in self._features.values() if each.how == "previous"]
        for row, feature in enumerate(before, start=_PREVIOUS * D_HEAD):
            read = sum(self._reading(word) for word in self._matching(feature.test))
            layer["v"][row] = read
            layer["o"][at[feature.name], row] = 1.0
        self._copy(_UNIFORM, {"start": 1.0}, "place")
        self._latest(_LAST_QUOTE, "quotes", 1000.0)
        self._copy(_LAST_QUOTE, {"opening": 1.0}, "mark")
        # Equally good as the token itself, of which nothing is read, halfway past the limit.
        reach = _RECENCY_NATS * math.sin(turn(_RECENCY_PAIR, D_HEAD) * (NEAR + 0.5))
        self._latest(_NEAR, "metals", reach)
        self._copy(_NEAR, {"metals": 1.0}, "metal near")

    def _matching(self, test: Any) -> list[str]:
        """The token feature that is this very test."""
        same = [each for each in self._features.values() if each.how == "token"]
        return [each.name for each in same if each.test is test][:1]

    def _reading(self, name: str) -> Floats:
        row = np.zeros(D_MODEL)
        row[self._at[name]] = 1.0
        return row

    def _latest(self, head: int, feature: str, nats: float) -> None:
        """Attend to the latest token with the feature, which is worth `nats`; else to itself."""
        layer, rows, half = self.layers[0], head * D_HEAD, D_HEAD // 2
        layer["q"][rows + _RECENCY_PAIR + half, self._at["constant"]] = _RECENCY_NATS
        layer["k"][rows + _RECENCY_PAIR, self._at["constant"]] = 1.0
        # The last pair hardly turns: it holds what does not depend on distance.
        layer["q"][rows + half - 1, self._at["constant"]] = nats
        layer["k"][rows + half - 1, self._at[feature]] = 1.0

    def _copy(self, head: int, read: dict[str, float], written: str) -> None:
        row = head * D_HEAD
        for name, factor in read.items():
            self.layers[0]["v"][row, self._at[name]] = factor
        self.layers[0]["o"][self._at[written], row] = 1.0

    def _sharpen(self) -> None:
        """Block 0's MLP: what attention fetched, cut at its threshold to 0 or 1."""
        used = 0
        for feature in self._features.values():
            match feature.how:
                case "first":
                    # At the token of index i, attention to all alike finds the start 1 / (i + 2).
                    inside, outside = 1 / (feature.limit + 1), 1 / (feature.limit + 2)
                    used = self._cut(
                        used,
                        "place",
                        (inside + outside) / 2,
                        feature.name,
                        slope=3 / (inside - outside),
                    )
                case "quoted":
                    used = self._cut(used, "mark", 0.5, feature.name, slope=4.0)
                case "near":
                    used = self._cut(used, "metal near", 0.5, feature.name, slope=4.0)

    def _cut(self, row: int, read: str, threshold: float, written: str, *, slope: float) -> int:
        """relu(z) - relu(z - 1) of z = slope (x - threshold) + 1/2, by two neurons."""
        layer = self.layers[0]
        for step, sign in ((0.0, 1.0), (1.0, -1.0)):
            layer["gate"][row, self._at[read]] = slope
            layer["gate"][row, self._at["constant"]] = 0.5 - slope * threshold - step
            layer["down"][self._at[written], row] = sign
            row += 1
        return row

    def _place(self, rules: list[tuple[Rule, int]]) -> None:
        """Block 1 makes the clauses, block 2 the units: each above 0 exactly where it has to be."""
        clauses, units = self.layers[1], self.layers[2]
        for rule, neuron in rules:
            units["up"][neuron, self._at["strength"]] = 1.0
            units["gate"][neuron, self._at["constant"]] = -1.0
            for clause in rule.clauses:
                name = f"clause {' & '.join(clause)}"
                if name not in self._at:
                    row = sum(each.startswith("clause ") for each in self._at)
                    self._dimension(name)
                    affirmed = [each for each in clause if not each.startswith("!")]
                    for each in clause:
                        at = self._at[each.removeprefix("!")]
                        clauses["gate"][row, at] += 2.0 if each in affirmed else -2.0
                    clauses["gate"][row, self._at["constant"]] = 1.0 - 2.0 * len(affirmed)
                    clauses["down"][self._at[name], row] = 1.0
                units["gate"][neuron, self._at[name]] = 2.0

    def _unembed(self) -> None:
        table, words = self.unembedding, self._lexicon.words
        shares = np.array(self._lexicon.shares)
        logits = np.where(shares > 0, np.log(np.maximum(shares, 1e-12)), _NEVER)
        opening, closing = words.index(OPENING), words.index(CLOSING)
        table[:, self._at["constant"]] = logits
        table[closing, self._at["constant"]] = _NEVER
        table[closing, self._at["mark"]] = logits[closing] - _NEVER
        table[opening, self._at["mark"]] = _NEVER
        openers = [words.index(word) for word in self._lexicon.groups["openers"]]
        table[openers, self._at["stops"]] = _AFTER_STOP
        table *= _SAMPLED_AT

    def tensors(self) -> dict[str, Tensor]:
        """The state of a `LlamaForCausalLM`."""
        if len(self._at) > D_MODEL:
            raise ValueError(f"{len(self._at)} dimensions in a residual of {D_MODEL}")
        return llama_state(
            self.embedding,
            self.unembedding,
            self.layers,
            read=self.rotation.T,
            write=self.rotation,
            d_head=D_HEAD,
        )


def _shuffled(state: dict[str, Tensor], generator: np.random.Generator) -> dict[str, Tensor]:
    """Every matrix with its numbers in random order; the norms' weights are all alike anyway."""
    return {
        name: torch.tensor(generator.permutation(value.numpy().ravel()).reshape(value.shape))
        for name, value in state.items()
    }


def _tokenizer(lexicon: Lexicon) -> Any:
    """One token a word or sign: texts are written with spaces between."""
    vocabulary = {word: index for index, word in enumerate(lexicon.words)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    wrap: Any = PreTrainedTokenizerFast
    return wrap(tokenizer_object=tokenizer, eos_token=DOCUMENT_START, unk_token=UNKNOWN)
