"""Errors about a person's occupation, in spite of a text that tells it; and their correction.

The published use of REMEDI on Bias in Bios (section 5). An editor learns, from biographies of other
people with other cues, to turn what a biography tells (the mean over its tokens, no label) into a
direction that makes the subject name the occupation. The probe foresees where the subject, with the
biography in its context, will name another occupation; there the biography's own direction is added
to the name in the question.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from dragoman.core.errors import ToolError
from dragoman.tools.editing.biographies import Biography, Occupations, Person, write_biographies
from dragoman.tools.editing.cached import PromptCache
from dragoman.tools.editing.detection.decoder import Claims, errs
from dragoman.tools.editing.detection.directions import AnswerDirections
from dragoman.tools.editing.detection.methods import Split
from dragoman.tools.editing.detection.probe import N_INNER, by_group
from dragoman.tools.editing.detection.questions import Asked, Range
from dragoman.tools.editing.detection.reading import probe_layers, read
from dragoman.tools.editing.detection.trial import Trial
from dragoman.tools.editing.editor import read_states
from dragoman.tools.editing.records import Prompt, ask
from dragoman.tools.editing.training import Examples, Material, TrainingSettings, train_editor
from dragoman.tools.subjects.language import LanguageSubject

SETTINGS = TrainingSettings(form="attribute", lambda_old=0.0, max_epochs=4)
"""The published loss for biographies has no term for an old answer: there is none."""
N_FOLDS = 4
_TRAINING_CUES, _TEST_CUES = slice(0, 4), slice(4, 8)


class OccupationStudy(NamedTuple):
    """Biographies of people whom the editor never saw, with the directions of their own texts."""

    biographies: tuple[Biography, ...]
    in_context: Trial
    without_context: Trial
    """The same questions without the biography before them."""
    directions: Float[Tensor, "biography d_model"]
    layer: int


def study_occupations(
    subject: LanguageSubject,
    data: Occupations,
    layer: int,
    seed: int,
    step: Callable[[int, int, str], None],
    *,
    per_person: int = 6,
) -> OccupationStudy:
    """Train on half of the people, read the other half."""
    generator = np.random.default_rng(seed)
    # Whole families stay on one side: the set gives a woman and a man the same surname.
    surnames = sorted({person.name.split()[-1] for person in data.names})
    order = [surnames[int(at)] for at in generator.permutation(len(surnames))]
    trained = set(order[: len(order) // 2])
    seen = [one for one in data.names if one.name.split()[-1] in trained]
    held = [one for one in data.names if one.name.split()[-1] not in trained]
    template = data.prompt_templates[0]
    names = [one.name for one in data.occupations]
    among = Range.of(subject, names)
    if len(among.ids) < 2:
        raise ToolError(
            "occupations: all of them begin with the same token for this subject, so there is "
            "nothing to tell apart"
        )
    texts = write_biographies(data, seen, _TRAINING_CUES, len(names) // 2, seed)
    step(0, 0, "training an editor on biographies")
    chosen = [one for at, one in enumerate(texts) if at % 6 == 0]
    kept = [one for at, one in enumerate(texts) if at % 6]
    trained_editor = train_editor(
        _material(subject, kept, template, layer, among),
        _material(subject, chosen, template, layer, among),
        layer,
        SETTINGS,
        seed,
        step=step,
    ).editor
    inputs = _inputs(subject, texts, layer)
    with torch.no_grad():
        edited = trained_editor(inputs).double().cpu().numpy()
    of = np.array([among.answer(one.occupation) for one in texts])
    attributes = inputs[:, 0].double().cpu().numpy()
    directions = AnswerDirections(
        np.stack([edited[of == at].mean(0) for at in range(len(among.ids))]),
        np.stack([attributes[of == at].mean(0) for at in range(len(among.ids))]),
    )
    tested = write_biographies(data, held, _TEST_CUES, per_person, seed + 1)
    with torch.no_grad():
        own: Tensor = trained_editor(_inputs(subject, tested, layer))
    return OccupationStudy(
        tuple(tested),
        _trial(subject, tested, template, among, directions, held, seed, step, told=True),
        _trial(subject, tested, template, among, directions, held, seed, step, told=False),
        own,
        layer,
    )


def _trial(
    subject: LanguageSubject,
    biographies: Sequence[Biography],
    template: str,
    among: Range,
    directions: AnswerDirections,
    people: Sequence[Person],
    seed: int,
    step: Callable[[int, int, str], None],
    *,
    told: bool,
) -> Trial:
    prompts = tuple(
        ask(template, one.person.name, f"{one.text} " if told else "") for one in biographies
    )
    claimed = np.array([among.answer(one.occupation) for one in biographies], dtype=np.int64)
    claims = Claims(claimed, np.ones((len(prompts), len(among.ids)), dtype=bool))
    groups = tuple(one.person.name for one in biographies)
    readings = read(subject, prompts, among.ids, probe_layers(subject), step=step)
    wrong = errs(readings.answers, claims)
    order = np.random.default_rng(seed).permutation(len(people))
    splits = []
    for fold in range(N_FOLDS):
        tested = {people[int(at)].name for at in order[fold::N_FOLDS]}
        fit = [at for at, name in enumerate(groups) if name not in tested]
        inner = by_group(wrong[fit], [groups[at] for at in fit], N_INNER, seed)
        splits.append(
            Split(
                tuple(fit),
                tuple(tuple(each) for each in inner),
                tuple(at for at, name in enumerate(groups) if name in tested),
            )
        )
    asked = Asked(prompts, claims, groups, ("told" if told else "",) * len(prompts))
    return Trial(asked, among, readings, wrong, directions, tuple(splits))


def _material(
    subject: LanguageSubject,
    texts: Sequence[Biography],
    template: str,
    layer: int,
    among: Range,
) -> Material:
    prompts: list[Prompt] = list(dict.fromkeys(ask(template, one.person.name) for one in texts))
    names = list(dict.fromkeys(one.person.name for one in texts))
    ids = [subject.first_token(one.occupation) for one in texts]
    # Any other answer: its term of the loss weighs nothing here.
    others = [next(each for each in among.ids if each != mine) for mine in ids]
    examples = Examples(
        PromptCache(subject, prompts, [layer]),
        tuple(names.index(one.person.name) for one in texts),
        _inputs(subject, texts, layer),
        torch.tensor(ids, device=subject.device),
        torch.tensor(others, device=subject.device),
    )
    return Material([examples], [])


@torch.no_grad()
def _inputs(
    subject: LanguageSubject, texts: Sequence[Biography], layer: int
) -> Float[Tensor, "biography part d_model"]:
    return read_states(subject, [one.told for one in texts], [layer])[layer]
