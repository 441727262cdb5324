"""What a subject says and knows, seen from outside."""

from types import MappingProxyType

from dragoman.agent.slots import open_prompt_slots, pair_slots, prompt_slots, relation_slots
from dragoman.agent.template import (
    NOTHING,
    Example,
    Template,
    Wording,
    pair_arguments,
    predict,
    relation_arguments,
    words,
)

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
    predictions=predict("log_probability_difference", 0.0, "observed"),
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
