"""Biographies of people whom the editor never saw, on a tiny subject."""

import numpy as np
import pytest
import torch

from dragoman.core.errors import ToolError
from dragoman.core.protocols import silent
from dragoman.tools.editing.biographies import Occupation, Occupations, Person, write_biographies
from dragoman.tools.editing.detection import occupations
from dragoman.tools.editing.detection.occupations import OccupationStudy, study_occupations
from dragoman.tools.subjects.language import LanguageSubject

DATA = Occupations(
    source="made up",
    prompt_templates=("{} has the work of a",),
    frames=("{name} is known here. {They} {first}, and {they} {second}.",),
    names=tuple(
        Person(name=f"{first} {last}", gender=gender)
        for last in ("Dog", "Cat", "Owl", "Fox")
        for first, gender in (("Ann", "woman"), ("Bob", "man"))
    ),
    occupations=tuple(
        Occupation(name=name, cues=tuple(f"{name[0]} does {cue}" for cue in "abcdefgh"))
        for name in ("dog", "animal", "capital")  # words of the tiny vocabulary
    ),
)


@pytest.fixture(scope="module")
def study(tiny_subject: LanguageSubject) -> OccupationStudy:
    return study_occupations(tiny_subject, DATA, 1, 0, silent, per_person=3)


def _surname(name: str) -> str:
    return name.split()[-1]


def test_families_and_cues_of_the_test_are_not_those_of_training(
    tiny_subject: LanguageSubject, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = []

    def keep(*arguments: object, **options: object) -> object:
        texts = write_biographies(*arguments, **options)  # type: ignore[arg-type]
        written.append(texts)
        return texts

    monkeypatch.setattr(occupations, "write_biographies", keep)
    study = study_occupations(tiny_subject, DATA, 1, 0, silent, per_person=3)
    seen, held = written
    assert {_surname(one.person.name) for one in seen}.isdisjoint(
        _surname(one.person.name) for one in held
    )
    assert not any(f" does {cue}" in one.text for one in held for cue in "abcd")
    assert not any(f" does {cue}" in one.text for one in seen for cue in "efgh")
    assert study.biographies == tuple(held)


def test_each_biography_is_asked_about_with_and_without_its_text(study: OccupationStudy) -> None:
    assert len(study.biographies) == 4 * 3
    pairs = zip(
        study.biographies,
        study.in_context.asked.prompts,
        study.without_context.asked.prompts,
        strict=True,
    )
    for place, (one, told, plain) in enumerate(pairs):
        assert told.text == f"{one.text} {plain.text}"
        assert plain.text == DATA.prompt_templates[0].replace("{}", one.person.name)
        # Read where the question names the person, not where the biography does.
        assert told.text[told.entity_end :] == plain.text[plain.entity_end :]
        for trial in (study.in_context, study.without_context):
            claimed = int(trial.asked.claims.claimed[place])
            assert one.occupation in trial.among.objects[claimed]
            assert trial.asked.claims.candidates[place].all()


def test_every_prompt_is_tested_once_by_a_probe_of_other_people(study: OccupationStudy) -> None:
    for trial in (study.in_context, study.without_context):
        assert trial.tested == list(range(len(study.biographies)))
        for split in trial.splits:
            people = [{trial.asked.groups[at] for at in side} for side in (split.fit, split.test)]
            assert people[0].isdisjoint(people[1])
            inner = sorted(at for fold in split.inner for at in fold)
            assert inner == list(range(len(split.fit)))


def test_directions_are_of_the_texts_themselves(study: OccupationStudy) -> None:
    assert study.directions.shape == (
        len(study.biographies),
        study.in_context.readings.entity.shape[-1],
    )
    assert bool(torch.isfinite(study.directions).all())
    apart = (study.directions[0] - study.directions[1]).norm()
    assert float(apart) > 0
    edited = study.in_context.directions.edited
    assert edited.shape == (len(DATA.occupations), study.directions.shape[1])
    assert np.isfinite(edited).all()
    assert not np.allclose(edited, study.in_context.directions.attributes)


def test_occupations_that_begin_alike_are_refused(tiny_subject: LanguageSubject) -> None:
    alike = tuple(
        Occupation(name=name, cues=DATA.occupations[0].cues) for name in ("nurse", "pilot")
    )
    assert len({tiny_subject.first_token(one.name) for one in alike}) == 1
    data = DATA.model_copy(update={"occupations": alike})
    with pytest.raises(ToolError, match="begin with the same token"):
        study_occupations(tiny_subject, data, 1, 0, silent)
