"""What a hypothesis can be about on a given subject: typed slots with bounds and enumerations."""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, create_model

from dragoman.core.records import SubjectIdentity, SubjectKind

N_DRAWN_NEURONS = 4

GROUPS: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "men and women": (
        ("John", "James", "Robert", "Michael", "David", "William", "Thomas", "Peter", "Paul"),
        ("Mary", "Linda", "Susan", "Karen", "Lisa", "Nancy", "Sarah", "Emma", "Anna"),
    ),
    "women and men": (
        ("Mary", "Linda", "Susan", "Karen", "Lisa", "Nancy", "Sarah", "Emma", "Anna"),
        ("John", "James", "Robert", "Michael", "David", "William", "Thomas", "Peter", "Paul"),
    ),
}
"""Pairs of groups by their members' names; the first is the side that a claim is about."""


class _Slots(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


@dataclass(frozen=True)
class Scene:
    """What an audit can choose from."""

    subject: SubjectIdentity
    relations: tuple[str, ...]
    seed: int
    effort: Literal["quick", "full"]
    groups: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]]
    corpus: str | None = None
    """A text file in place of text sampled from the subject."""
    kind: SubjectKind = "language"
    units: tuple[int, ...] = ()
    """Neurons of each layer where layers differ; empty where each has `d_mlp`."""

    def n_units(self, layer: int) -> int:
        """Neurons that can be asked about in `layer`."""
        return self.units[layer] if self.units else self.subject.d_mlp

    def draw_neurons(self, layer: int) -> list[int]:
        """A seeded draw of neurons where the question names none."""
        chooser = random.Random(f"{self.seed} {layer}")
        return sorted(chooser.sample(range(self.n_units(layer)), N_DRAWN_NEURONS))


def relation_slots(scene: Scene) -> type[BaseModel]:
    """`relation`: one of the audit's relations."""
    return create_model("RelationSlots", __base__=_Slots, relation=(_relation(scene), ...))


def relation_layer_slots(scene: Scene) -> type[BaseModel]:
    """`relation`, and the one `layer` to which the question confines itself, if any."""
    layer: Any = Annotated[int, Field(ge=0, lt=scene.subject.n_layers)] | None
    named: Any = Annotated[
        layer, Field(description="the number of the layer that the question names, else null")
    ]
    return create_model(
        "RelationLayerSlots", __base__=_Slots, relation=(_relation(scene), ...), layer=(named, None)
    )


def relations_slots(scene: Scene) -> type[BaseModel]:
    """`relations`: two to four different ones of the audit's."""
    relations: Any = Annotated[
        list[one_of(scene.relations)],  # type: ignore[misc]  # made at run time
        Field(min_length=2, max_length=4, description="the relations that are to be compared"),
    ]
    return create_model("RelationsSlots", __base__=_Slots, relations=(relations, ...))


def neuron_slots(scene: Scene) -> type[BaseModel]:
    """`layer` and `neurons` within the subject's sizes; no neurons asks for a seeded draw."""
    layer: Any = Annotated[
        int,
        Field(ge=0, lt=scene.subject.n_layers, description="the number of the layer or block"),
    ]
    neuron: Any = Annotated[int, Field(ge=0, lt=scene.subject.d_mlp)]
    named: Any = Annotated[
        list[neuron],
        Field(
            max_length=8,
            description="the numbers of all neurons that the question names, or [] for none",
        ),
    ]
    return create_model("NeuronSlots", __base__=_Slots, layer=(layer, ...), neurons=(named, ...))


def needed_neuron_slots(scene: Scene) -> type[BaseModel]:
    """`neuron_slots`, and the `relation` whose facts the neurons may be needed for, if any."""
    relation: Any = Annotated[
        one_of(scene.relations) | None,
        Field(description="the relation whose facts the neurons may be needed for, else null"),
    ]
    return create_model(
        "NeededNeuronSlots", __base__=neuron_slots(scene), relation=(relation, None)
    )


def concept_slots(scene: Scene) -> type[BaseModel]:
    """`concept`: what units are looked for that respond to it."""
    return create_model(
        "ConceptSlots",
        __base__=_Slots,
        concept=(_word("what the units should respond to, in the question's words"), ...),
    )


def pair_slots(scene: Scene) -> type[BaseModel]:
    """`groups`: a pair of groups by name; `occupation`: one word."""
    groups: Any = Annotated[
        one_of(tuple(scene.groups)), Field(description="first the group that is expected to lead")
    ]
    return create_model(
        "PairSlots",
        __base__=_Slots,
        groups=(groups, ...),
        occupation=(_word("the occupation that the question names, in one word"), ...),
    )


def prompt_slots(scene: Scene) -> type[BaseModel]:
    """`prompt` and the `answer` whose probability is asked for."""
    return create_model(
        "PromptSlots",
        __base__=_Slots,
        prompt=(_prompt(), ...),
        answer=(_word("the answer to look for"), ...),
    )


def open_prompt_slots(scene: Scene) -> type[BaseModel]:
    """`prompt` alone: what follows it is for the subject to say."""
    return create_model("OpenPromptSlots", __base__=_Slots, prompt=(_prompt(), ...))


def entity_slots(scene: Scene) -> type[BaseModel]:
    """`relation`, an `entity` of it and the `new_object` that it is to have."""
    return create_model(
        "EntitySlots",
        __base__=_Slots,
        relation=(_relation(scene), ...),
        entity=(_word("the entity that is to be changed"), ...),
        new_object=(_word("the object that it is to have from then on"), ...),
    )


def described(form: type[BaseModel]) -> str:
    """A form's slots with what is to be filled in, for a chat model."""
    return "; ".join(f"{name} ({field.description})" for name, field in form.model_fields.items())


def one_of(names: tuple[Any, ...]) -> Any:
    """The type whose values are `names`, for a reply that may choose among them."""
    return Literal[names]


def _relation(scene: Scene) -> Any:
    return Annotated[
        one_of(scene.relations), Field(description="the relation that the question is about")
    ]


def _prompt() -> Any:
    return Annotated[
        str, Field(min_length=1, max_length=300, description="the quoted prompt, word for word")
    ]


def _word(description: str) -> Any:
    return Annotated[str, Field(min_length=1, max_length=60, description=description)]
