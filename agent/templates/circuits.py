"""How a relation is decoded, where, and what the subject holds when it says otherwise."""

from types import MappingProxyType

from dragoman.agent.slots import relation_layer_slots, relation_slots, relations_slots
from dragoman.agent.template import (
    NOTHING,
    Example,
    Template,
    Wording,
    layer_arguments,
    predict,
    relation_arguments,
    relations_arguments,
    words,
)
from dragoman.core.claims import Prediction

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

DECIDED = Template(
    name="decided_where",
    asks="Where in the network (layers, tokens, blocks, paths) are a relation's facts decided?",
    statement="a few layers of the residual stream decide the facts of {relation}",
    example=Example(
        "At which layers is an animal's class worked out?", {"relation": "animal_class"}
    ),
    slots=relation_slots,
    tool="trace_fact",
    arguments=relation_arguments,
    predictions=lambda arguments: (
        Prediction(metric="effect_restored", threshold=0.5, rung="intervention-supported"),
        Prediction(metric="path_effect", threshold=0.05, rung="intervention-supported"),
    ),
    wordings=MappingProxyType(
        {
            "effect_restored": Wording(
                held=(
                    "What decides the facts of {relation} stands at {scope}: put into another "
                    "entity's run, it restores <effect_restored>."
                ),
                refuted=(
                    "No single layer decides the facts of {relation}: the best, {scope}, restores "
                    "<effect_restored>."
                ),
                inconclusive=(
                    "Whether {scope} decides the facts of {relation} stays open: it restores "
                    "<effect_restored>."
                ),
            ),
            "path_effect": Wording(
                held="The path {scope} carries facts of {relation}: its effect is <path_effect>.",
                refuted=(
                    "No single path between blocks carries the facts of {relation}: the strongest, "
                    "{scope}, has the effect <path_effect>."
                ),
                inconclusive=(
                    "Whether the path {scope} carries facts of {relation} stays open: its effect "
                    "is <path_effect>."
                ),
            ),
        }
    ),
    refuted_by="a share restored wholly below one half, or no more than a random change restores",
    rivals=(
        NOTHING + "a random change of equal length restores as much",
        "the facts are decided in many places, none of which is enough",
    ),
    controls=("a random change of equal length", "noise in place of another entity"),
    confounds=(
        "the layer was chosen on other facts of the same relation",
        "each fact was traced against one other entity",
        "what a patch restores may be carried by later layers only",
    ),
    cues=words("trac- patch- localis- localiz- decided path paths"),
    hints=words("where layer layers block blocks token tokens attention mlp stored happens"),
)

DISTRACTED = Template(
    name="holds_truth_unsaid",
    asks="Does the subject hold the truth inside while it says something false (attribute lens)?",
    statement=(
        "told something false about {relation}, the subject still holds the truth that it does "
        "not say"
    ),
    example=Example(
        "Told that iron is a gas, does it still hold that it is a solid, without saying so?",
        {"relation": "substance_phase"},
    ),
    slots=relation_slots,
    tool="attribute_lens",
    arguments=relation_arguments,
    predictions=predict("lens_lead_at_1", 0.0, "correlated"),
    wordings=MappingProxyType(
        {
            "lens_lead_at_1": Wording(
                held=(
                    "Told something false about {relation}, the subject holds the truth inside "
                    "more often than it says it ({scope}): lead <lens_lead_at_1>."
                ),
                refuted=(
                    "Told something false about {relation}, the subject's representation holds "
                    "the truth no more often than its answer does ({scope}): lead "
                    "<lens_lead_at_1>."
                ),
                inconclusive=(
                    "Whether the subject holds a truth about {relation} that it does not say "
                    "({scope}) stays open: lead <lens_lead_at_1>."
                ),
            )
        }
    ),
    refuted_by="a lens that names the true object no more often than the subject's answer does",
    rivals=(
        NOTHING + "the map names frequent objects whatever it reads",
        "the false statement changes the representation as it changes the answer",
    ),
    controls=("shuffled relation", "logit lens", "bias alone"),
    confounds=(
        "the lens reads what a linear map can find, and not what the subject uses",
        "the layer was chosen on other facts of the same relation",
    ),
    cues=words("lens hide hides hiding lie lies lying truth secretly inwardly mislead- hold holds"),
    hints=words("false told still say says unsaid despite though repeat- distract-"),
)

SHARED = Template(
    name="relations_share_directions",
    asks="Do two or more relations use the same directions (are their maps alike)?",
    statement="the maps of the relations {relations} use the same directions",
    example=Example(
        "Are the plural of a noun and the past tense of a verb read from the same subspace?",
        {"relations": ["noun_plural", "verb_past_tense"]},
    ),
    slots=relations_slots,
    tool="compare_relations",
    arguments=relations_arguments,
    predictions=predict("subspace_overlap", 0.1, "correlated"),
    wordings=MappingProxyType(
        {
            "subspace_overlap": Wording(
                held=(
                    "Among the relations {relations}, two use shared directions ({scope}): "
                    "overlap <subspace_overlap>."
                ),
                refuted=(
                    "The relations {relations} share no directions to speak of; the most alike "
                    "({scope}) overlap by <subspace_overlap>."
                ),
                inconclusive=(
                    "Whether the relations {relations} use the same directions ({scope}) stays "
                    "open: overlap <subspace_overlap>."
                ),
            )
        }
    ),
    refuted_by="an overlap of the most alike pair that is no larger than that of random subspaces",
    rivals=(
        NOTHING + "random subspaces of that size overlap as much",
        "the maps share what all maps share, the directions of large variance",
    ),
    controls=("random subspaces", "two halves of one relation's own facts"),
    confounds=(
        "maps of one layer were compared",
        "the interval shows the spread over splits of few facts",
    ),
    cues=words("share shares sharing shared compare compared overlap- subspace- angle angles"),
    hints=words("same both alike similar two directions maps relations together cluster-"),
)
