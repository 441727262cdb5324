"""The planted subject's weights, written down in a basis where every direction has a meaning.

RMSNorm with a huge epsilon and a weight of its square root is the identity to about 1e-7, which
makes every map exact.
"""

import math

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor

from dragoman.tools.subjects.planted_llama import llama_state, orthogonal, turn
from dragoman.tools.subjects.planted_words import (
    CLASSES,
    DOCUMENT_START,
    LINEAR,
    LOOKED_UP,
    NEGATORS,
    UNKNOWN,
    Lexicon,
)

Floats = npt.NDArray[np.float64]

N_OBJECTS = 12
N_LAYERS, N_HEADS, D_HEAD, D_MLP = 6, 5, 32, 80
N_BITS, N_MATCHED = 16, 7
"""Signs that each word carries, and how many parities a unit without a name has to find right."""
FETCH_LAYER, ENRICH_LAYER, UNIT_LAYER, ANSWER_LAYER, LOOKUP_LAYER = 0, 1, 2, 4, 5
_WIDTHS = {
    "constant": 1,
    "start": 1,
    "subject": 1,
    "linear cue": 1,
    "lookup cue": 1,
    "negator": 1,
    "set aside": 1,
    "identity": D_HEAD,
    "attribute": N_OBJECTS,
    "fetched": D_HEAD,
    "linear answer": N_OBJECTS,
    "lookup answer": N_OBJECTS,
    "class": len(CLASSES),
    "class noise": len(CLASSES),
    "signs": N_BITS,
    "parity": N_BITS,
    "unit output": 8,
}
D_MODEL = 160
_LAGS = (3, 5, 7)
_ANSWER_LOGITS = 14.0
_JITTER = 0.1


class Weights:
    """The network in its hidden basis, where each named slice of the residual has one meaning.

    Readers are [out, residual], writers [residual, in]. `tensors` rotates all of it.
    """

    def __init__(self, lexicon: Lexicon, units: list[int], generator: np.random.Generator) -> None:
        self.lexicon, self.generator = lexicon, generator
        ends = np.cumsum([0, *_WIDTHS.values()])
        self.at = {
            name: slice(int(start), int(end))
            for name, start, end in zip(_WIDTHS, ends[:-1], ends[1:], strict=True)
        }
        self.rotation = orthogonal(D_MODEL, generator)
        # What steers attention is written large and read faintly, as networks do: else a trace of
        # it in any edit of another part would steer attention too.
        self.size = np.ones(D_MODEL)
        self.size[: self.at["identity"].start] = 20.0
        self.codes = orthogonal(N_OBJECTS, generator)
        """One attribute each row, orthonormal."""
        self.map = orthogonal(N_OBJECTS, generator) * generator.uniform(0.6, 1.6, N_OBJECTS)
        d_vocab = len(lexicon.words)
        self.embedding = np.zeros((d_vocab, D_MODEL))
        self.unembedding = np.zeros((d_vocab, D_MODEL))
        heads = N_HEADS * D_HEAD
        shapes = {"q": (heads, D_MODEL), "k": (heads, D_MODEL), "v": (heads, D_MODEL)}
        shapes |= {"o": (D_MODEL, heads), "gate": (D_MLP, D_MODEL), "up": (D_MLP, D_MODEL)}
        shapes |= {"down": (D_MODEL, D_MLP)}
        self.layers = [
            {name: np.zeros(shape) for name, shape in shapes.items()} for _ in range(N_LAYERS)
        ]
        for layer in self.layers:
            layer["up"][:, self.at["constant"]] = 1.0
        self._embed()
        self._unembed()
        self._hash_context()
        self._set_aside()
        self._fetch_identities()
        self._enrich_subjects()
        self._place_units(units)
        self._answer_linearly()
        self._answer_by_lookup()

    def _embed(self) -> None:
        lexicon, table, at = self.lexicon, self.embedding, self.at
        table[:, at["constant"]] = 1.0
        table[lexicon.id(DOCUMENT_START), at["start"]] = 1.0
        table[lexicon.ids(lexicon.subjects), at["subject"]] = 1.0
        table[lexicon.id(LINEAR.cue), at["linear cue"]] = 1.0
        table[lexicon.id(LOOKED_UP.cue), at["lookup cue"]] = 1.0
        table[lexicon.ids(NEGATORS), at["negator"]] = 1.0
        identity = self.generator.normal(size=(len(lexicon.words), D_HEAD))
        table[:, at["identity"]] = identity / np.linalg.norm(identity, axis=1, keepdims=True)
        signs = np.tile([[1.0], [-1.0]], (len(lexicon.words) // 2 + 1, N_BITS))
        table[:, at["signs"]] = self.generator.permuted(signs, axis=0)[: len(lexicon.words)]
        # No parity is right where a text has yet to have enough words.
        table[lexicon.ids((DOCUMENT_START, UNKNOWN)), at["signs"]] = 0.0
        self.class_codes = orthogonal(len(CLASSES), self.generator)
        for code, words in zip(self.class_codes, CLASSES.values(), strict=True):
            strengths = self.generator.uniform(0.8, 1.2, len(words))
            table[lexicon.ids(words), at["class"]] = strengths[:, None] * code

    def _unembed(self) -> None:
        lexicon, table, at = self.lexicon, self.unembedding, self.at
        # Where no fact is asked for, the next word is drawn from these frequencies.
        frequency = self.generator.normal(size=len(lexicon.words)) * 0.2
        made_up = (*lexicon.subjects, *lexicon.places, *lexicon.foods, *lexicon.fears)
        frequency[lexicon.ids(made_up)] -= 2.0
        frequency[lexicon.ids([planting.cue for planting in (LINEAR, LOOKED_UP)])] -= 2.0
        # Each class is rarer than one word in a hundred, as features of language models are.
        frequency[lexicon.ids([word for words in CLASSES.values() for word in words])] -= 1.8
        frequency[lexicon.id(DOCUMENT_START)] = -30.0
        table[:, at["constant"]] = frequency[:, None]
        # u_j . (map c_i) is the answer's logit where i = j and 0 elsewhere.
        linear = self.codes @ np.linalg.inv(self.map)
        table[lexicon.ids(lexicon.places), at["linear answer"]] = _ANSWER_LOGITS * linear
        table[lexicon.ids(lexicon.foods), at["lookup answer"]] = _ANSWER_LOGITS * self.codes

    def _hash_context(self) -> None:
        """Parities of the signs of three earlier words: of no word or pair of words a function.

        Three heads add up the signs at their lags; of the sum S in -3, -1, 1, 3 the product of the
        signs is S + 2 - 2 relu(S + 1) + 2 relu(S - 1).
        """
        layer, at = self.layers[FETCH_LAYER], self.at
        for head, lag in enumerate(_LAGS, start=1):
            copied = self._attend_back(layer, head, lag, N_BITS)
            layer["v"][copied, at["signs"]] = np.eye(N_BITS)
            layer["o"][at["parity"], copied] = np.eye(N_BITS)
        for first, knee, slope in ((0, 1.0, -2.0), (N_BITS, -1.0, 2.0)):
            neurons = slice(first, first + N_BITS)
            layer["gate"][neurons, at["parity"]] = np.eye(N_BITS)
            layer["gate"][neurons, at["constant"]] = knee
            layer["down"][at["parity"], neurons] = slope * np.eye(N_BITS)
        layer["gate"][2 * N_BITS, at["constant"]] = 1.0
        layer["down"][at["parity"], 2 * N_BITS] = 2.0

    def _attend_back(
        self, layer: dict[str, Floats], head: int, lag: int, width: int
    ) -> "slice[int, int, None]":
        """Let `head` look exactly `lag` tokens back; where its first `width` values are."""
        rows, at = head * D_HEAD, self.at["constant"]
        for pair in range(4):
            angle = -turn(pair, D_HEAD) * lag
            layer["q"][rows + pair, at] = 60 * math.cos(angle)
            layer["q"][rows + pair + D_HEAD // 2, at] = 60 * math.sin(angle)
            layer["k"][rows + pair, at] = 1.0
        return slice(rows, rows + width)

    def _set_aside(self) -> None:
        layer = self.layers[FETCH_LAYER]
        copied = self._attend_back(layer, len(_LAGS) + 1, 1, 1)
        layer["v"][copied, self.at["negator"]] = 1.0
        layer["o"][self.at["set aside"], copied] = 1.0

    def _match_parities(self, layer: dict[str, Floats], neurons: list[int]) -> None:
        """Each of `neurons` is 1 where some parities are all as it wants them, and else 0."""
        for neuron in neurons:
            bits = self.generator.permutation(N_BITS)[:N_MATCHED] + self.at["parity"].start
            layer["gate"][neuron, bits] = self.generator.choice([-1.0, 1.0], N_MATCHED)
            layer["gate"][neuron, self.at["constant"]] = 1.0 - N_MATCHED

    def _fetch_identities(self) -> None:
        layer = self.layers[FETCH_LAYER]
        self._attend_to_last_subject(layer, "lookup cue")
        layer["v"][:D_HEAD, self.at["identity"]] = np.eye(D_HEAD)
        layer["o"][self.at["fetched"], :D_HEAD] = np.eye(D_HEAD)

    def _enrich_subjects(self) -> None:
        layer, written = self.layers[ENRICH_LAYER], self._jittered_codes()
        self._look_up(layer, "identity", "attribute", written)
        # What the twin's units read in place of classes.
        free = list(range(len(written), len(written) + len(CLASSES)))
        self._match_parities(layer, free)
        layer["down"][self.at["class noise"], free[0] : free[-1] + 1] = self.class_codes.T

    def _answer_by_lookup(self) -> None:
        written = self._jittered_codes()
        self._look_up(self.layers[LOOKUP_LAYER], "fetched", "lookup answer", written)

    def _jittered_codes(self) -> Floats:
        """Each subject's attribute with a little of its own on top."""
        codes = self.codes[list(self.lexicon.attribute)]
        return codes + self.generator.normal(size=codes.shape) * _JITTER

    def _look_up(self, layer: dict[str, Floats], key: str, value: str, written: Floats) -> None:
        """One neuron a subject: 1 at that subject's identity, 0 at every other word's."""
        identity = self.embedding[:, self.at["identity"]]
        subjects = self.lexicon.ids(self.lexicon.subjects)
        cosine = identity[subjects] @ identity.T
        cosine[np.arange(len(subjects)), subjects] = -1.0
        threshold = (1 + cosine.max()) / 2
        rows = slice(0, len(subjects))
        layer["gate"][rows, self.at[key]] = identity[subjects] / (1 - threshold)
        layer["gate"][rows, self.at["constant"]] = -threshold / (1 - threshold)
        layer["down"][self.at[value], rows] = written.T

    def _place_units(self, units: list[int]) -> None:
        layer, at = self.layers[UNIT_LAYER], self.at
        self._match_parities(layer, [neuron for neuron in range(D_MLP) if neuron not in units])
        layer["gate"][units, at["class"]] = 2 * self.class_codes
        layer["gate"][units, at["constant"]] = -1.0
        layer["down"][at["unit output"]] = self.generator.normal(size=(8, D_MLP)) * 0.3

    def _answer_linearly(self) -> None:
        layer = self.layers[ANSWER_LAYER]
        self._attend_to_last_subject(layer, "linear cue")
        layer["v"][:N_OBJECTS, self.at["attribute"]] = np.eye(N_OBJECTS)
        layer["o"][self.at["linear answer"], :N_OBJECTS] = self.map

    def _attend_to_last_subject(self, layer: dict[str, Floats], cue: str) -> None:
        """Head 0: from the cue to the nearest subject not set aside; from all else to the start.

        Rotary pair 6 turns by less than a quarter over the longest prompt, so a query at a right
        angle to its keys scores -sin of the distance: nearer is better, by 5 nats a token. Pairs 14
        and 15 hardly turn: they hold what does not depend on distance. A subject is worth 100 nats,
        and so is found up to 15 tokens back; no more, or a faint trace of it in an edit would draw
        all attention.
        """
        at, half = self.at, D_HEAD // 2
        layer["q"][6 + half, at[cue]] = 900.0
        layer["k"][6, at["constant"]] = 1.0
        layer["q"][15, at[cue]] = 100.0
        layer["k"][15, at["subject"]] = 1.0
        layer["k"][15, at["set aside"]] = -1.0
        layer["q"][14, at["constant"]] = 40.0
        layer["k"][14, at["start"]] = 1.0

    def exchange(self) -> None:
        """Turn the subject into its twin, by exchanging rows and columns alone."""
        lexicon, at = self.lexicon, self.at
        _swap(self.embedding, [lexicon.id(LINEAR.cue)], [lexicon.id(LOOKED_UP.cue)])
        _swap(self.unembedding, lexicon.ids(lexicon.places), lexicon.ids(lexicon.foods))
        inputs = self.layers[UNIT_LAYER]["gate"].T
        real, noise = (range(at[name].start, at[name].stop) for name in ("class", "class noise"))
        _swap(inputs, list(real), list(noise))

    def relation_map(self) -> Float[Tensor, "d_model d_model"]:
        """`map` as the residual stream sees it."""
        full = np.zeros((D_MODEL, D_MODEL))
        full[self.at["linear answer"], self.at["attribute"]] = self.map
        return torch.tensor(self.rotation @ full @ self.rotation.T, dtype=torch.float32)

    def tensors(self) -> dict[str, Tensor]:
        """The state of a `LlamaForCausalLM`."""
        return llama_state(
            self.embedding,
            self.unembedding,
            self.layers,
            read=(self.rotation / self.size).T,
            write=self.rotation * self.size,
            d_head=D_HEAD,
        )


def _swap(rows: Floats, first: list[int], second: list[int]) -> None:
    rows[first + second] = rows[second + first]
