"""The editing eval: which goals are missed, the page, and rows that survive a stop."""

from pathlib import Path

import pytest

from dragoman.core.records import Measurement, Unit
from dragoman.evals import editing
from dragoman.evals.editing_row import Row
from dragoman.evals.editing_table import fluency_change, missed, render
from dragoman.evals.editing_why import beside_prompts
from dragoman.evals.rows import append, read_rows
from dragoman.tools.context import ToolContext
from dragoman.tools.editing.directions import EDITED, NO_EDIT, REPLACED
from dragoman.tools.editing.selection import StrengthTrial, best
from dragoman.tools.editing.sweep import SweepRow
from dragoman.tools.relations import load_relation
from dragoman.tools.subjects.language import LanguageSubject


def _measured(
    metric: str, value: float, baseline: float = 0.0, unit: Unit = "fraction"
) -> Measurement:
    return Measurement(
        metric=metric,
        value=value,
        unit=unit,
        baseline=baseline,
        control="mean difference, the best baseline",
        ci95=(value, value),
        n=10,
        n_failed=0,
        baseline_ci95=(baseline, baseline),
    )


def _trial(strength: float, essence: float, efficacy: float = 1.0) -> StrengthTrial:
    return StrengthTrial(
        strength=strength,
        efficacy=efficacy,
        paraphrase_efficacy=None,
        neighbourhood_specificity=1.0,
        essence=essence,
        fluency=1.0,
    )


GOOD = Row(
    relation="country_capital",
    content="c",
    subject_digest="d",
    seed=11,
    code="e",
    layer=15,
    strength=0.8,
    n_known=30,
    n_facts=40,
    n_entities=10,
    methods={
        EDITED: {"efficacy": 1.0, "fluency": 4.9, "essence": 0.6},
        NO_EDIT: {"efficacy": 0.0, "fluency": 5.0, "essence": 1.0},
    },
    measurements=(
        _measured("efficacy", 0.99),
        _measured("paraphrase_efficacy", 0.95),
        _measured("neighbourhood_specificity", 0.97),
        _measured("fluency", 4.9, 5.0, "bit"),
        _measured("essence", 0.6, 0.1, "cosine"),
        _measured("harmonic_mean", 0.85, 0.7),
    ),
    lead=(0.15, 0.05, 0.2),
)


def _changed(metric: str, value: float) -> Row:
    return GOOD.model_copy(
        update={
            "measurements": tuple(
                one.model_copy(update={"value": value}) if one.metric == metric else one
                for one in GOOD.measurements
            )
        }
    )


def test_a_relation_that_meets_every_goal() -> None:
    assert missed(GOOD) == []
    assert fluency_change(GOOD) == pytest.approx(-0.02)


@pytest.mark.parametrize(
    ("metric", "value", "name"),
    [
        ("efficacy", 0.97, "efficacy"),
        ("paraphrase_efficacy", 0.89, "paraphrase efficacy"),
        ("neighbourhood_specificity", 0.94, "neighbourhood specificity"),
        ("fluency", 4.8, "fluency"),
        ("fluency", 5.2, "fluency"),
    ],
)
def test_each_goal_can_be_missed(metric: str, value: float, name: str) -> None:
    assert missed(_changed(metric, value)) == [name]


def test_no_lead_and_nothing_measured_are_missed() -> None:
    assert missed(GOOD.model_copy(update={"lead": (0.0, -0.1, 0.1)})) == ["best"]
    assert len(missed(GOOD.model_copy(update={"measurements": ()}))) == 4


def test_the_page() -> None:
    row = _changed("efficacy", 0.5).model_copy(
        update={
            "relation": "word|x",
            "sweep": (
                SweepRow(layer=3, editor=(_trial(1.0, 0.5),), mean_difference=(_trial(1.0, 0.2),)),
            ),
        }
    )
    refused = GOOD.model_copy(update={"relation": "no", "refused": "too few known facts"})
    page = render([GOOD, row, refused], subject="smollm2", command="make it")
    assert "all goals at once: 1 of 2" in page
    assert "| mean difference 0.70 | +0.15 [+0.05, +0.20] | none |" in page
    assert "Why `word|x` misses efficacy" in page
    assert "| 3 | mean difference | 1.00 / none / 1.00 / 0.20 → 0.50 |" in page
    assert "- `no`: too few known facts" in page
    assert "98.2" in page
    assert "word\\|x" in page


def test_edits_stand_beside_prompts_that_say_the_same() -> None:
    def row(name: str, edited: float, replaced: float, *specificities: float) -> Row:
        trials = tuple(
            _trial(1.0, 0.5).model_copy(
                update={"paraphrase_efficacy": 0.95, "neighbourhood_specificity": one}
            )
            for one in specificities
        )
        weak = _trial(0.5, 0.5, efficacy=0.5)  # most specific of all, and takes no hold
        return GOOD.model_copy(
            update={
                "relation": name,
                "methods": {
                    EDITED: {"neighbourhood_specificity": edited, "fluency": 4.0},
                    REPLACED: {"neighbourhood_specificity": replaced, "fluency": 6.0},
                    NO_EDIT: {"fluency": 5.0},
                },
                "sweep": (SweepRow(layer=3, editor=(*trials, weak), mean_difference=(weak,)),),
            }
        )

    text = "\n".join(beside_prompts([row("one", 0.8, 0.7, 0.9, 0.96), row("two", 0.6, 0.97), GOOD]))
    assert "| `one` | 0.80 | 0.70 |  | 0.96 (layer 3, strength 1) | none holds so |" in text
    assert "| -20.0% | +20.0% |" in text
    assert "| `two` | 0.60 | 0.97 |  | none holds so | none holds so |" in text
    assert "| `country_capital` |  |  |  | not swept | not swept |" in text
    assert "below 0.95 in 1 of 2 relations; edited less replaced: -0.13 [-0.37, +0.10]" in text
    assert "at some layer and strength of the sweep in 1 of 2 relations" in text


def test_rows_survive_a_line_that_was_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    append(path, GOOD)
    with path.open("a") as opened:
        opened.write('{"relation": "cut')
    assert read_rows(path, Row) == [GOOD]
    other = GOOD.model_copy(update={"relation": "other"})
    append(path, other)
    assert read_rows(path, Row) == [GOOD, other]


def test_the_best_strength_is_the_strongest_of_equals() -> None:
    assert best([_trial(1.0, 0.5), _trial(0.5, 0.9), _trial(0.25, 0.9)]).strength == 0.5


def test_what_does_not_hold_is_no_choice_while_anything_holds() -> None:
    assert best([_trial(1.0, 0.2), _trial(0.5, 0.9, efficacy=0.9)]).strength == 1.0
    assert best([_trial(1.0, 0.2, efficacy=0.9), _trial(0.5, 0.9, efficacy=0.8)]).strength == 0.5


def test_what_is_missing_is_judged_and_then_swept_where_it_misses_a_goal(
    tiny_subject: LanguageSubject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[str] = []

    def judge(ctx: ToolContext, name: str, plan: object) -> Row:
        ran.append(f"judge {name}")
        known = {
            "relation": name,
            "content": load_relation(name).content_id(),
            "subject_digest": ctx.subject.identity.digest,
            "seed": ctx.seed,
        }
        # Of nouns nothing could be measured; adjectives reach everything.
        return GOOD.model_copy(update=known | ({"measurements": ()} if "noun" in name else {}))

    def add_sweep(ctx: ToolContext, row: Row, plan: object) -> Row:
        ran.append(f"sweep {row.relation}")
        trials = (_trial(1.0, 0.5),)
        layer = SweepRow(layer=1, editor=trials, mean_difference=trials)
        return row.model_copy(update={"sweep": (layer,)})

    monkeypatch.setattr(editing, "load_subject", lambda name, settings: tiny_subject)
    monkeypatch.setattr(editing, "judge", judge)
    monkeypatch.setattr(editing, "add_sweep", add_sweep)
    rows, out = tmp_path / "rows.jsonl", tmp_path / "page.md"
    arguments = ["noun_plural", "adj_antonym", "--rows", str(rows), "--out", str(out)]
    assert editing.main([*arguments, "--table-only"]) == 1
    assert editing.main([*arguments, "--no-sweep", "--at-most", "1"]) == 0
    assert ran == ["judge noun_plural"]
    assert editing.main(arguments) == 0
    assert ran[1:] == ["judge adj_antonym", "sweep noun_plural"]
    page = out.read_text()
    assert page.index("`noun_plural`") < page.index("`adj_antonym`")
    # Nothing is done twice, and of two rows of a relation the swept one is shown.
    assert editing.main(arguments) == 0
    assert len(ran) == 3
    assert [bool(row.sweep) for row in read_rows(rows, Row)] == [True, False]
    assert out.read_text() == page
