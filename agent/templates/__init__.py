"""The catalogue of hypotheses: each with its prediction, test, controls and null.

A small chat model chooses among these and fills their slots; it cannot invent experiments. A
large one adds its own hypotheses within the same types. The order is the order of a first look:
behaviour before internals, breadth before depth. Among equals the fixed protocol takes the first.
"""

from collections.abc import Mapping
from types import MappingProxyType

from dragoman.agent.template import Template
from dragoman.agent.templates.behaviour import ALIKE, CONTINUES, KNOWS, PREDICTS
from dragoman.agent.templates.captioning import CONCEPT, NEEDED, RESPONDS
from dragoman.agent.templates.circuits import DECIDED, DECODES, DISTRACTED, SHARED
from dragoman.agent.templates.editing import EDITS, FORESEES, SINGLE_EDIT, THROUGH_MAP

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
            DECIDED,
            DISTRACTED,
            SHARED,
            NEEDED,
            CONCEPT,
            FORESEES,
            THROUGH_MAP,
        )
    }
)
