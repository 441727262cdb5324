"""What single units respond to, which units respond to something, and what units are for."""

from types import MappingProxyType

from dragoman.agent.slots import concept_slots, needed_neuron_slots, neuron_slots
from dragoman.agent.template import (
    NOTHING,
    Example,
    Template,
    Wording,
    needed_arguments,
    neuron_arguments,
    predict,
    words,
)
from dragoman.core.claims import Prediction, Rung

_OF_A_CAPTION: tuple[tuple[str, float, Rung], ...] = (
    ("detection", 0.6, "correlated"),
    # Told of a caption that holds, by ablating and amplifying the unit.
    ("causal_effect", 0.0, "intervention-supported"),
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
            metric=metric,
            threshold=threshold,
            rung=rung,
            scope=f"unit {arguments['layer']}.{neuron}",
        )
        for metric, threshold, rung in _OF_A_CAPTION
        for neuron in (arguments["neurons"] if isinstance(arguments["neurons"], list) else [])
    ),
    raises=MappingProxyType({"causal_effect": "detection"}),
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
            ),
            "causal_effect": Wording(
                held="Changed, it changes the text or answers that this predicts: <causal_effect>.",
                refuted=(
                    "What it does to them is no more than like units do, or than it does to "
                    "anything else."
                ),
                inconclusive="What it does to them stays open.",
            ),
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

NEEDED = Template(
    name="units_needed",
    asks="What do neurons do: does switching them off (ablation) harm text or a relation?",
    statement="the subject needs the neurons {neurons} of layer {layer}",
    example=Example(
        "Is neuron 3 of layer 6 needed to give an animal its class?",
        {"layer": 6, "neurons": [3], "relation": "animal_class"},
    ),
    slots=needed_neuron_slots,
    tool="ablate_neurons",
    arguments=needed_arguments,
    predictions=lambda arguments: (
        Prediction(
            metric=(
                "ablation_effect_accuracy"
                if arguments["effect"] == "relation"
                else "ablation_effect_loss"
            ),
            threshold=0.0,
            rung="intervention-supported",
        ),
    ),
    wordings=MappingProxyType(
        {
            "ablation_effect_loss": Wording(
                held=(
                    "Switching off {neurons} of layer {layer} makes text less "
                    "probable: <ablation_effect_loss>."
                ),
                refuted=(
                    "Switching off {neurons} of layer {layer} harms text no more than "
                    "random neurons do: <ablation_effect_loss>."
                ),
                inconclusive=(
                    "Whether the subject needs {neurons} of layer {layer} for text "
                    "stays open: <ablation_effect_loss>."
                ),
            ),
            "ablation_effect_accuracy": Wording(
                held=(
                    "Switching off {neurons} of layer {layer} loses facts of "
                    "{relation}: <ablation_effect_accuracy>."
                ),
                refuted=(
                    "Switching off {neurons} of layer {layer} loses no more facts of "
                    "{relation} than random neurons do: <ablation_effect_accuracy>."
                ),
                inconclusive=(
                    "Whether {neurons} of layer {layer} are needed for {relation} "
                    "stays open: <ablation_effect_accuracy>."
                ),
            ),
        }
    ),
    refuted_by="an effect no larger than that of matched random neurons",
    rivals=(
        NOTHING + "as many random neurons of the layer do as much",
        "the neurons matter for something that was not measured",
    ),
    controls=("matched random neurons",),
    confounds=(
        "other neurons may take over what is switched off",
        "the text was sampled from the subject itself",
    ),
    cues=words("ablat- remov- delet- disabl- knock- switch- needs needed necessary"),
    hints=words("neuron- unit units off without important harm harms matter matters"),
)

CONCEPT = Template(
    name="units_for_concept",
    asks="Which neurons (units) respond to a named concept, among those captioned before?",
    statement="some unit that was captioned responds to “{concept}”",
    example=Example("Which units are about music?", {"concept": "music"}),
    slots=concept_slots,
    tool="search_neurons",
    arguments=lambda slots, scene: {"concept": str(slots["concept"])},
    predictions=predict("similarity", 0.0, "observed"),
    wordings=MappingProxyType(
        {
            "similarity": Wording(
                held="Units have captions near “{concept}”: similarity <similarity>.",
                refuted="No caption is nearer to “{concept}” than to random words: <similarity>.",
                inconclusive=(
                    "Whether any unit's caption is near “{concept}” stays open: <similarity>."
                ),
            )
        }
    ),
    refuted_by="no stored caption that is nearer to the concept than to random words",
    rivals=(
        NOTHING + "the captions are as near to random words",
        "a caption that matches in words tells little of what the unit does",
    ),
    controls=("the same captions and random words",),
    confounds=(
        "only units that were captioned before were searched",
        "a caption near the concept is no proof that the unit matters for it",
    ),
    hints=words("neuron- unit units concept concepts"),
)
