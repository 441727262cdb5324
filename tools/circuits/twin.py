"""The random-weight twin: what the same method finds in a network that has learnt nothing.

Same architecture, tokenizer, layer and beta; weights freshly drawn. Only W h is needed, for the
tested facts alone, so the twin's map is never formed: forward-mode products give it. They are taken
at the first few prompts: the mean over more of them would know no more.
"""

from collections.abc import Sequence

import torch

from dragoman.core.records import Site
from dragoman.tools.circuits.faithfulness import decode, first_tokens
from dragoman.tools.circuits.jacobian import jacobian_products
from dragoman.tools.circuits.passes import SharedPrompts
from dragoman.tools.circuits.prompts import leave_one_out, relation_prompt
from dragoman.tools.circuits.selection import Setting
from dragoman.tools.relations import Sample
from dragoman.tools.subjects.huggingface import random_twin
from dragoman.tools.subjects.language import LanguageSubject

_PROMPTS = 3
MAXIMUM_PARAMETERS = 500_000_000
"""A twin doubles the memory: a larger subject goes without."""


def make_twin(subject: LanguageSubject, seed: int) -> LanguageSubject | None:
    """The subject's twin; None where it would not fit beside the subject."""
    if subject.identity.n_parameters > MAXIMUM_PARAMETERS:
        return None
    return random_twin(subject, seed)


@torch.no_grad()
def twin_answers(
    twin: LanguageSubject,
    template: str,
    estimation: Sequence[Sample],
    samples: Sequence[Sample],
    setting: Setting,
) -> list[str]:
    """What the twin's own map says of `samples`, at the subject's layer and with its beta."""
    prompts = [relation_prompt(template, estimation, each.subject) for each in samples]
    entity = SharedPrompts(twin, prompts).read().entity[setting.layer]
    site = Site(layer=setting.layer)
    expanded = leave_one_out(template, estimation)[:_PROMPTS]
    products = jacobian_products(twin, expanded, site, entity)
    finals = setting.value * products.linear + products.bias
    return decode(twin, finals, first_tokens(twin, samples)).texts
