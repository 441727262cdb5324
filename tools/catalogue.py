"""Every tool, by name: the one list that agent, command line and evals read.

A new tool is written in its own module, decorated with `@tool`, and named here.
"""

from dragoman.tools.behaviour.contrast import compare_prompts
from dragoman.tools.behaviour.knowledge import probe_knowledge
from dragoman.tools.behaviour.prediction import continue_text, predict_next
from dragoman.tools.captioning.ablation import ablate_neurons
from dragoman.tools.captioning.find import find_exemplars
from dragoman.tools.captioning.score import score_caption
from dragoman.tools.captioning.search import search_neurons
from dragoman.tools.captioning.tool import caption_neurons
from dragoman.tools.circuits.compare_tool import compare_relations
from dragoman.tools.circuits.edit_tool import edit_through_relation
from dragoman.tools.circuits.lens_tool import attribute_lens
from dragoman.tools.circuits.tool import approximate_relation
from dragoman.tools.circuits.trace_tool import trace_fact
from dragoman.tools.editing.detection.tool import detect_errors
from dragoman.tools.editing.text_tool import edit_text
from dragoman.tools.editing.tool import edit_representation
from dragoman.tools.editing.training_tools import sweep_edit_layer, train_editor
from dragoman.tools.recall import recall_findings
from dragoman.tools.registry import Tool

TOOLS: dict[str, Tool] = {
    each.name: each
    for each in (
        predict_next,
        continue_text,
        compare_prompts,
        probe_knowledge,
        approximate_relation,
        attribute_lens,
        edit_through_relation,
        trace_fact,
        compare_relations,
        train_editor,
        edit_representation,
        edit_text,
        sweep_edit_layer,
        detect_errors,
        find_exemplars,
        caption_neurons,
        score_caption,
        search_neurons,
        ablate_neurons,
        recall_findings,
    )
}
