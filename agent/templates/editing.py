"""What changes when the representation of an entity is edited, and which errors it foretells."""

from types import MappingProxyType

from dragoman.agent.slots import entity_slots, relation_slots
from dragoman.agent.template import (
    NOTHING,
    Example,
    Template,
    Wording,
    predict,
    relation_arguments,
    words,
)
from dragoman.core.claims import Prediction
from dragoman.core.records import JsonObject


def _holds_and_spares(arguments: JsonObject) -> tuple[Prediction, ...]:
    """What any edit of a relation's facts is held to, trained or not."""
    return (
        Prediction(metric="efficacy", threshold=0.7, rung="intervention-supported"),
        Prediction(
            metric="neighbourhood_specificity", threshold=0.7, rung="intervention-supported"
        ),
    )


EDITS = Template(
    name="edit_generalises",
    asks=(
        "Can facts of a relation be edited inside the subject, and are other entities spared "
        "(an editor, REMEDI)?"
    ),
    statement="an edit of an entity's representation changes its {relation} and no other",
    example=Example(
        "If names are given another gender from within, do the other names keep theirs?",
        {"relation": "name_gender"},
    ),
    slots=relation_slots,
    tool="edit_representation",
    arguments=relation_arguments,
    predictions=_holds_and_spares,
    wordings=MappingProxyType(
        {
            "efficacy": Wording(
                held=(
                    "Edits of {relation} take hold on entities that the editor never saw: "
                    "efficacy <efficacy>."
                ),
                refuted=(
                    "Edits of {relation} do not take hold on entities that the editor never saw: "
                    "efficacy <efficacy>."
                ),
                inconclusive=(
                    "Whether edits of {relation} take hold on entities that the editor never saw "
                    "stays open: efficacy <efficacy>."
                ),
            ),
            "neighbourhood_specificity": Wording(
                held=(
                    "Edits of {relation} leave other entities as they were: "
                    "neighbourhood specificity <neighbourhood_specificity>."
                ),
                refuted=(
                    "Edits of {relation} spill over to other entities: "
                    "neighbourhood specificity <neighbourhood_specificity>."
                ),
                inconclusive=(
                    "Whether edits of {relation} leave other entities as they were stays open: "
                    "neighbourhood specificity <neighbourhood_specificity>."
                ),
            ),
        }
    ),
    refuted_by="efficacy wholly below the threshold, or no better than its control",
    rivals=(
        NOTHING + "any push of that size moves the answer as often",
        "the edit overwrites the prompt instead of the entity",
    ),
    controls=("no edit", "prefix", "identity", "a random direction of equal norm"),
    confounds=(
        "efficacy compares two answers and not the whole vocabulary",
        "the edited prompts share one template with the training prompts",
        "few entities are left for the test",
    ),
    cues=words("edit- rewrit- overwrit- steer- inject- alter- replac- belief beliefs remedi"),
    hints=words("chang- generali- entity entities represent- spare- unseen neighbour- neighbor-"),
)

THROUGH_MAP = Template(
    name="edit_through_map",
    asks=(
        "Can facts of a relation be edited without any training, through the inverse of its linear "
        "map?"
    ),
    statement=(
        "moving an entity's representation through the inverse of the linear map of {relation} "
        "changes its {relation} and no other"
    ),
    example=Example(
        "Does the inverse of the map from a verb to its past tense edit single verbs?",
        {"relation": "verb_past_tense"},
    ),
    slots=relation_slots,
    tool="edit_through_relation",
    arguments=relation_arguments,
    predictions=_holds_and_spares,
    wordings=MappingProxyType(
        {
            "efficacy": Wording(
                held=(
                    "Edits through the inverse of the linear map of {relation} take hold without "
                    "training: efficacy <efficacy>."
                ),
                refuted=(
                    "Edits through the inverse of the linear map of {relation} do not take hold: "
                    "efficacy <efficacy>."
                ),
                inconclusive=(
                    "Whether edits through the inverse of the linear map of {relation} take hold "
                    "stays open: efficacy <efficacy>."
                ),
            ),
            "neighbourhood_specificity": Wording(
                held=(
                    "Edits through the inverse of the linear map of {relation} leave other "
                    "entities as they were: neighbourhood specificity <neighbourhood_specificity>."
                ),
                refuted=(
                    "Edits through the inverse of the linear map of {relation} spill over to other "
                    "entities: neighbourhood specificity <neighbourhood_specificity>."
                ),
                inconclusive=(
                    "Whether edits through the inverse of the linear map of {relation} leave other "
                    "entities as they were stays open: neighbourhood specificity "
                    "<neighbourhood_specificity>."
                ),
            ),
        }
    ),
    refuted_by="efficacy wholly below the threshold, or no better than its control",
    rivals=(
        NOTHING + "any push of that size moves the answer as often",
        "the change of the answer's representation alone, without the map, moves it as often",
    ),
    controls=(
        "no edit",
        "prefix",
        "the change of z without the map",
        "a random direction of equal norm",
    ),
    confounds=(
        "efficacy compares two answers and not the whole vocabulary",
        "layer and rank were chosen on other entities of the same relation",
        "few entities are left for the test",
    ),
    cues=words("inverse inverses invert- pseudoinverse untrained"),
    hints=words("edit- chang- map maps linear train- training without through"),
)

SINGLE_EDIT = Template(
    name="single_edit_holds",
    asks="Can one named entity be given one named new object by an edit?",
    statement="an edit makes the subject give {entity} the {relation} {new_object}",
    example=Example(
        "Make it believe that iron is a gas.",
        {"relation": "substance_phase", "entity": "iron", "new_object": "gas"},
    ),
    slots=entity_slots,
    tool="edit_representation",
    arguments=lambda slots, scene: {
        "relation": str(slots["relation"]),
        "entity": str(slots["entity"]),
        "new_object": str(slots["new_object"]),
        "effort": scene.effort,
    },
    predictions=predict("new_object_probability", 0.2, "intervention-supported"),
    wordings=MappingProxyType(
        {
            "new_object_probability": Wording(
                held=(
                    "Once edited, {entity} has the {relation} “{new_object}”: "
                    "probability <new_object_probability>."
                ),
                refuted=(
                    "The edit does not give {entity} the {relation} “{new_object}”: "
                    "probability <new_object_probability>."
                ),
                inconclusive=(
                    "Whether the edit gives {entity} the {relation} “{new_object}” stays open: "
                    "probability <new_object_probability>."
                ),
            )
        }
    ),
    refuted_by="a probability wholly below the threshold, or not above that without the edit",
    rivals=(
        NOTHING + "the new object is as probable without the edit",
        "the edit makes the new object probable everywhere",
    ),
    controls=("no edit",),
    confounds=("one entity says little about others",),
    cues=words("make makes making turn turns believe believes told tell pretend- convince-"),
    hints=words("edit- chang- replac- instead into becomes set"),
)

FORESEES = Template(
    name="errors_foreseen",
    asks=(
        "Which facts of a relation will the subject get wrong: can its errors be foreseen from its "
        "representations, before it answers?"
    ),
    statement="the subject's errors on {relation} can be foreseen from its representations",
    example=Example(
        "Can its mistakes about the currencies of countries be told before it makes them?",
        {"relation": "country_currency"},
    ),
    slots=relation_slots,
    tool="detect_errors",
    arguments=relation_arguments,
    predictions=lambda arguments: (
        Prediction(metric="phi", threshold=0.2, rung="correlated"),
        Prediction(metric="phi_above_confidence", threshold=0.0, rung="correlated"),
    ),
    wordings=MappingProxyType(
        {
            "phi": Wording(
                held=(
                    "The subject's errors on {relation} can be foreseen from its representations: "
                    "phi <phi>."
                ),
                refuted=(
                    "The subject's errors on {relation} cannot be foreseen from its "
                    "representations: phi <phi>."
                ),
                inconclusive=(
                    "Whether the subject's errors on {relation} can be foreseen from its "
                    "representations stays open: phi <phi>."
                ),
            ),
            "phi_above_confidence": Wording(
                held=(
                    "Its representations foretell errors on {relation} better than its own "
                    "confidence does: difference in phi <phi_above_confidence>."
                ),
                refuted=(
                    "Its representations foretell errors on {relation} no better than its own "
                    "confidence does: difference in phi <phi_above_confidence>."
                ),
                inconclusive=(
                    "Whether its representations foretell errors on {relation} better than its own "
                    "confidence does stays open: difference in phi <phi_above_confidence>."
                ),
            ),
        }
    ),
    refuted_by="phi wholly below the threshold, or not above that of the subject's own confidence",
    rivals=(
        NOTHING + "errors fall where the stated object is a rare one, whatever the entity is",
        "the subject's own confidence foretells them as well",
    ),
    controls=(
        "the subject's own confidence",
        "labels dealt out anew",
        "the stated object alone",
        "another entity's representation",
    ),
    confounds=(
        "the probe is told what is true; the subject's confidence is not",
        "an answer counts as right by its first token alone",
        "the probe was fitted on other entities of the same relation",
    ),
    cues=words(
        "mistake- mistaken error- err errs foresee- foretell- forecast- risk risks risky fail-"
    ),
    hints=words("wrong before predict- trust reliab- unsure"),
)
