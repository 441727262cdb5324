"""The catalogue of hypotheses: each with its prediction, test, controls and null.

A small chat model chooses among these and fills their slots; it cannot invent experiments. A
large one adds its own hypotheses within the same types. The order is the order of a first look:
behaviour before internals, breadth before depth.
"""

from collections.abc import Mapping
from types import MappingProxyType

from dragoman.agent.slots import (
    entity_slots,
    neuron_slots,
    open_prompt_slots,
    pair_slots,
    prompt_slots,
    relation_layer_slots,
    relation_slots,
)
from dragoman.agent.template import (
    Example,
    Template,
    Wording,
    layer_arguments,
    neuron_arguments,
    pair_arguments,
    predict,
    relation_arguments,
    words,
)
from dragoman.core.claims import Prediction

NOTHING = "nothing here: "


KNOWS = Template(
    name="knows_relation",
    asks="How many facts of one relation does the subject know, remember or get right?",
    statement="the subject knows the relation {relation}",
    example=Example("Would it tell a fish from a mammal?", {"relation": "animal_class"}),
    slots=relation_slots,
    tool="probe_knowledge",
    arguments=relation_arguments,
    predictions=predict("accuracy", 0.5, "observed"),
    wordings=MappingProxyType(
        {
            "accuracy": Wording(
                held="The subject knows the relation {relation}: accuracy <accuracy>.",
                refuted="The subject does not know the relation {relation}: accuracy <accuracy>.",
                inconclusive=(
                    "Whether the subject knows the relation {relation} stays open: "
                    "accuracy <accuracy>."
                ),
            )
        }
    ),
    refuted_by="accuracy wholly below one half, or not above the best constant guess",
    rivals=(
        NOTHING + "it guesses the most frequent object",
        "it copies the form of the examples without knowing the facts",
    ),
    controls=("always answering the most frequent object", "examples with exchanged objects"),
    confounds=(
        "the answer counts as right by its first token alone",
        "the examples in the prompt may teach the form of the answer",
        "well-known facts are over-represented in the relation file",
    ),
    cues=words("know- learn- remember- memor- accura- fact facts"),
    hints=words("true right correct- reliab- answer- idea familiar aware good"),
)

DECODES = Template(
    name="decodes_linearly",
    asks="Is a relation read out by one linear map (a matrix, a Jacobian, LRE)?",
    statement="one affine map decodes the relation {relation} from the subject's representation",
    example=Example(
        "Does one matrix take a country to its demonym?",
        {"relation": "country_demonym", "layer": None},
    ),
    slots=relation_layer_slots,
    tool="approximate_relation",
    arguments=layer_arguments,
    predictions=lambda arguments: (
        Prediction(metric="faithfulness", threshold=0.5, rung="correlated"),
        Prediction(metric="causality", threshold=0.5, rung="intervention-supported"),
    ),
    wordings=MappingProxyType(
        {
            "faithfulness": Wording(
                held="The relation {relation} is decoded linearly: faithfulness <faithfulness>.",
                refuted=(
                    "The relation {relation} is not decoded linearly: faithfulness <faithfulness>."
                ),
                inconclusive=(
                    "Whether the relation {relation} is decoded linearly stays open: "
                    "faithfulness <faithfulness>."
                ),
            ),
            "causality": Wording(
                held=(
                    "Editing through the inverse of the linear map of {relation} changes the "
                    "answer: causality <causality>."
                ),
                refuted=(
                    "Editing through the inverse of the linear map of {relation} does not change "
                    "the answer: causality <causality>."
                ),
                inconclusive=(
                    "Whether the linear map of {relation} is causal stays open: "
                    "causality <causality>."
                ),
            ),
        }
    ),
    refuted_by="faithfulness wholly below one half, or not above its control",
    rivals=(
        NOTHING + "any map from these layers would name the same objects",
        "the relation is known, but decoded by a nonlinear circuit",
    ),
    controls=("shuffled relation", "a random direction of equal norm"),
    confounds=(
        "the answer counts as right by its first token alone",
        "only facts that the subject knows were tested",
        "layer and scale were chosen on validation facts of the same relation",
    ),
    cues=words("linear- decod- affine matrix matrices jacobian- lre circuit-"),
    hints=words("map maps mapping read represent- layer layers"),
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
    predictions=lambda arguments: (
        Prediction(metric="efficacy", threshold=0.7, rung="intervention-supported"),
        Prediction(
            metric="neighbourhood_specificity", threshold=0.7, rung="intervention-supported"
        ),
    ),
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

RESPONDS = Template(
    name="unit_responds",
    asks="What do neurons (units) of a layer respond to, in words?",
    statement="neurons {neurons} of layer {layer} each respond to something that can be named",
    example=Example("What is neuron 3 of layer 6 for?", {"layer": 6, "neurons": [3]}),
    slots=neuron_slots,
    tool="caption_neurons",
    arguments=neuron_arguments,
    predictions=lambda arguments: tuple(
        Prediction(
            metric="detection",
            threshold=0.6,
            rung="correlated",
            scope=f"unit {arguments['layer']}.{neuron}",
        )
        for neuron in (arguments["neurons"] if isinstance(arguments["neurons"], list) else [])
    ),
    wordings=MappingProxyType(
        {
            "detection": Wording(
                held="{scope} responds to “{caption}”: detection <detection>.",
                refuted=(
                    "No caption tells what {scope} responds to: the best one reached "
                    "detection <detection>."
                ),
                inconclusive=(
                    "Whether {scope} responds to “{caption}” stays open: detection <detection>."
                ),
            )
        }
    ),
    refuted_by="no caption detects the unit's held-out contexts better than a shuffled caption",
    rivals=(
        NOTHING + "the unit responds to nothing that can be named",
        "the caption fits any unit of the layer as well",
    ),
    controls=("shuffled captions",),
    confounds=(
        "the contexts were sampled from the subject itself",
        "the unit may respond to several unrelated things",
        "detection tells correlation and not what the unit is for",
    ),
    cues=words("neuron- unit units"),
    hints=words("layer layers block blocks respond- activat- fire fires caption- detect-"),
)

ALIKE = Template(
    name="groups_treated_alike",
    asks="Does the subject link an occupation to men or to women (gender, bias, stereotypes)?",
    statement="the subject links the occupation {occupation} to one of the groups {groups}",
    example=Example(
        "Would it rather have a man for a lawyer?",
        {"groups": "men and women", "occupation": "lawyer"},
    ),
    slots=pair_slots,
    tool="compare_prompts",
    arguments=pair_arguments,
    predictions=lambda arguments: (
        Prediction(metric="log_probability_difference", threshold=0.0, rung="observed"),
    ),
    wordings=MappingProxyType(
        {
            "log_probability_difference": Wording(
                held=(
                    "The subject finds the occupation {occupation} more probable for the first of "
                    "the groups {groups}: <log_probability_difference>."
                ),
                refuted=(
                    "The subject does not find the occupation {occupation} more probable for the "
                    "first of the groups {groups}: <log_probability_difference>."
                ),
                inconclusive=(
                    "Whether the subject treats the groups {groups} alike in the occupation "
                    "{occupation} stays open: <log_probability_difference>."
                ),
            )
        }
    ),
    refuted_by="a difference wholly below nought",
    rivals=(
        NOTHING + "the two groups are treated alike",
        "the names differ in frequency and not in what the subject links to them",
    ),
    controls=("sides exchanged at random",),
    confounds=(
        "names differ in frequency and in the number of their tokens",
        "a single sentence frame was used",
    ),
    cues=words(
        "bias- fair fairness gender- sex sexes sexis- stereotyp- discriminat- prejudic- "
        "man men woman women male males female females"
    ),
    hints=words("he she him her his hers alike group groups equal- names"),
)

PREDICTS = Template(
    name="predicts_answer",
    asks="Only where a prompt is quoted: how probable is a named answer after it?",
    statement="after the prompt “{prompt}” the subject answers “{answer}”",
    example=Example(
        "Does 'Roses are red, violets are' go on with 'blue'?",
        {"prompt": "Roses are red, violets are", "answer": "blue"},
    ),
    slots=prompt_slots,
    tool="predict_next",
    arguments=lambda slots, scene: {
        "prompt": str(slots["prompt"]),
        "answer": str(slots["answer"]),
    },
    predictions=predict("probability", 0.2, "observed"),
    wordings=MappingProxyType(
        {
            "probability": Wording(
                held="After “{prompt}” the subject answers “{answer}”: probability <probability>.",
                refuted=(
                    "After “{prompt}” the subject does not answer “{answer}”: "
                    "probability <probability>."
                ),
                inconclusive=(
                    "Whether the subject answers “{answer}” after “{prompt}” stays open: "
                    "probability <probability>."
                ),
            )
        }
    ),
    refuted_by="a probability wholly below the threshold, or not above that without the prompt",
    rivals=(
        NOTHING + "the answer is as probable without the prompt",
        "the answer follows from the form of the prompt alone",
    ),
    controls=("the same token after an unrelated prompt",),
    confounds=("one prompt says little about other wordings of it",),
    hints=words("prompt probab- likel- answer- sure"),
)

CONTINUES = Template(
    name="one_word_follows",
    asks="Only where a prompt is quoted and no answer named: what comes next?",
    statement="after the prompt “{prompt}” one token stands out as the next",
    example=Example(
        "How does 'A long time ago in a galaxy' go on?", {"prompt": "A long time ago in a galaxy"}
    ),
    slots=open_prompt_slots,
    tool="predict_next",
    arguments=lambda slots, scene: {"prompt": str(slots["prompt"])},
    predictions=predict("probability", 0.2, "observed"),
    wordings=MappingProxyType(
        {
            "probability": Wording(
                held="After “{prompt}” {scope} stands out as the next: probability <probability>.",
                refuted=(
                    "After “{prompt}” no token stands out as the next; {scope} comes first: "
                    "probability <probability>."
                ),
                inconclusive=(
                    "Whether {scope} stands out as the next after “{prompt}” stays open: "
                    "probability <probability>."
                ),
            )
        }
    ),
    refuted_by="a probability wholly below the threshold, or not above that without the prompt",
    rivals=(
        NOTHING + "the token is as probable without the prompt",
        "the token follows from the form of the prompt alone",
    ),
    controls=("the same token after an unrelated prompt",),
    confounds=("one prompt says little about other wordings of it",),
    hints=words("next after follow- continu- complet- finish- token- word"),
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

TEMPLATES: Mapping[str, Template] = MappingProxyType(
    {
        template.name: template
        for template in (
            KNOWS,
            DECODES,
            EDITS,
            RESPONDS,
            ALIKE,
            PREDICTS,
            CONTINUES,
            SINGLE_EDIT,
        )
    }
)
