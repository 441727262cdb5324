"""A language subject whose truth is known: facts, a relation map and units set by hand.

A Llama of six blocks whose weights are written down, not trained. In a hidden basis, which a random
rotation spreads over all of `d_model`, it does four things and nothing else:

- *Linear relation* ("{} lives in"): block 1 looks up each subject and writes its attribute into the
  subject's own residual; block 4 carries that attribute, at the cue word, through the known matrix
  `relation_map` to where the unembedding reads it. So at the outputs of blocks 1, 2 and 3 the
  relation is exactly linear. The cue reads the nearest subject, unless "not" or "unlike" stands
  right before that one.
- *Looked-up relation* ("{} likes to eat"): block 0 copies the subject's identity to the cue word,
  where block 5 looks it up. The facts are as well known, yet no block output at the subject has any
  influence on them: nothing to linearise, nothing to edit.
- *Absent relation* ("{} is afraid of"): no weights at all.
- *Units*: some neurons of block 2 fire on the words of one class each, and on nothing else; all its
  other neurons fire on parities of signs that the words three, five and seven places before happen
  to carry: as rarely, and on nothing that any one word or two would tell.

The *twin* has the same weights with rows and columns exchanged: the cues and answers of the two
known relations, and the inputs of the units. It knows exactly the same facts, but now "{} lives in"
is the one that is looked up at the end, and the units answer to nothing nameable. Whatever a method
finds in the subject and in the twin alike, it has not found in the weights.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float
from torch import Tensor

from dragoman.core.files import write_atomic
from dragoman.core.records import JsonObject, Record, canonical_json
from dragoman.tools.relations import Relation
from dragoman.tools.subjects.language import LanguageSubject
from dragoman.tools.subjects.planted_llama import make_llama
from dragoman.tools.subjects.planted_weights import (
    ANSWER_LAYER,
    D_HEAD,
    D_MLP,
    ENRICH_LAYER,
    N_LAYERS,
    N_OBJECTS,
    UNIT_LAYER,
    Weights,
)
from dragoman.tools.subjects.planted_words import (
    ABSENT,
    CLASSES,
    LINEAR,
    LOOKED_UP,
    make_lexicon,
    make_tokenizer,
)

N_SUBJECTS = 60


class PlantedUnit(Record):
    """A neuron of `unit_layer` that fires on these words and is exactly 0 on any other."""

    neuron: int
    name: str
    words: tuple[str, ...]


class PlantedTruth(Record):
    """What is true of the planted subject; the twin keeps the facts and loses the rest."""

    linear: Relation
    linear_layers: tuple[int, ...]
    """Blocks at whose output, at the subject's token, `linear` is exactly linear."""
    linear_rank: int
    looked_up: Relation
    absent: Relation
    unit_layer: int
    units: tuple[PlantedUnit, ...]
    decoys: tuple[int, ...]
    """All other neurons of `unit_layer`: active now and then, on nothing that has a name."""


@dataclass(frozen=True)
class Planted:
    """The subject, its twin, and the truth."""

    subject: LanguageSubject
    twin: LanguageSubject
    truth: PlantedTruth
    relation_map: Float[Tensor, "d_model d_model"]
    """dz/dh of the linear relation at `linear_layers`; z is the last block's output at the cue."""

    def write_relations(self, folder: Path) -> dict[str, Path]:
        """The three relations as files in the published format: linear, looked_up, absent."""
        paths = {}
        for role in ("linear", "looked_up", "absent"):
            paths[role] = folder / f"{role}.json"
            write_atomic(paths[role], canonical_json(_document(getattr(self.truth, role))))
        return paths

    def save(self, folder: Path) -> None:
        """Folders `subject` and `twin` that `--subject` takes, `relations`, and `truth.json`."""
        for name, each in (("subject", self.subject), ("twin", self.twin)):
            each.model.save_pretrained(folder / name)
            each.tokenizer.save_pretrained(folder / name)
        self.write_relations(folder / "relations")
        write_atomic(folder / "truth.json", self.truth.model_dump_json(indent=2))


def plant(seed: int = 0) -> Planted:
    """Write down the subject and its twin; equal seeds give equal weights, to the bit."""
    generator = np.random.default_rng(seed)
    lexicon = make_lexicon(N_SUBJECTS, N_OBJECTS, generator)
    neurons = generator.permutation(D_MLP)
    weights = Weights(lexicon, neurons[: len(CLASSES)].tolist(), generator)
    tokenizer = make_tokenizer(lexicon)
    truth = PlantedTruth(
        linear=lexicon.relation(LINEAR),
        linear_layers=tuple(range(ENRICH_LAYER, ANSWER_LAYER)),
        linear_rank=N_OBJECTS,
        looked_up=lexicon.relation(LOOKED_UP),
        absent=lexicon.relation(ABSENT),
        unit_layer=UNIT_LAYER,
        units=tuple(
            PlantedUnit(neuron=int(neuron), name=name, words=words)
            for neuron, (name, words) in zip(neurons, CLASSES.items(), strict=False)
        ),
        decoys=tuple(sorted(int(neuron) for neuron in neurons[len(CLASSES) :])),
    )
    subject = LanguageSubject(
        make_llama(weights.tensors(), n_layers=N_LAYERS, d_head=D_HEAD),
        tokenizer,
        f"planted (seed {seed})",
    )
    weights.exchange()
    twin = LanguageSubject(
        make_llama(weights.tensors(), n_layers=N_LAYERS, d_head=D_HEAD),
        tokenizer,
        f"planted twin (seed {seed})",
    )
    return Planted(subject, twin, truth, weights.relation_map())


def _document(relation: Relation) -> JsonObject:
    return {
        "name": relation.name,
        "prompt_templates": list(relation.prompt_templates),
        "prompt_templates_zs": list(relation.prompt_templates_zs),
        "properties": {
            "relation_type": relation.kind,
            "domain_name": relation.domain_name,
            "range_name": relation.range_name,
            "symmetric": relation.symmetric,
        },
        "samples": [sample.model_dump() for sample in relation.samples],
    }
