"""The relations eval: rows are kept, a stopped run goes on, and the table says what it must."""

import json

import pytest

from dragoman.core.settings import Settings
from dragoman.evals import relations
from dragoman.evals.relations_table import correlation, gather, render
from dragoman.evals.rows import read_rows
from dragoman.tools.circuits.trial import CUT
from dragoman.tools.circuits.trial_record import Outcomes, TrialRecord
from dragoman.tools.relations import RelationKind


def _outcomes(share, count=20):
    named = round(share * count)
    values = [1.0] * named + [0.0] * (count - named)
    return Outcomes(by_fact={f"s{i}": each for i, each in enumerate(values)}, chance=0.05)


def _trial(seed, faithfulness, causality, count=20):
    return TrialRecord(
        seed=seed,
        known=_outcomes(0.9, 40),
        lacking="",
        tested=tuple(f"s{i}" for i in range(count + 2)),
        n_objects=10,
        n_sharing=0,
        layer=7,
        beta=2.0,
        named=_outcomes(faithfulness, count),
        whole=_outcomes(faithfulness, count),
        recall={1: faithfulness, 2: 1.0, 3: 1.0, 5: 1.0},
        controls={"logit lens": _outcomes(0.1, count)},
        edit_layer=3,
        rank=64,
        succeeded=_outcomes(causality, count),
        edit_controls={
            "random direction of equal norm": _outcomes(0.0, count),
            CUT: _outcomes(0.7, count),
        },
    )


def _render(rows):
    return render(rows, subject="a | b", command="run", seconds=120.0, n_codes=1)


def test_means_take_only_relations_with_enough_known_held_out_facts():
    rows: list[tuple[str, RelationKind, TrialRecord]] = [
        ("large", "factual", _trial(0, 0.8, 0.9)),
        ("large", "factual", _trial(1, 0.9, 0.9)),
        ("small", "factual", _trial(0, 0.0, 0.0, count=10)),
    ]
    text = _render(rows)
    assert (
        "| factual | 1 | 0.85 [0.85, 0.85] | 0.64 | 0.90 [0.90, 0.90] | 0.70 [0.70, 0.70] | 0.72 |"
        in text
    )
    assert "| bias | 0 | none | 0.91 | none | none | 0.98 |" in text
    assert "| `large` | factual | 2 |" in text
    assert "fewer than 12 known held-out facts: `small`" in text
    assert "above 0.6: 1 of 1 relations" in text
    assert "0.80 to 0.90" in text
    assert [each.name for each in gather(rows)] == ["large", "small"]
    assert "measured yet" not in text
    told = render(rows, subject="a", command="run", seconds=1.0, n_codes=1, missing=["absent"])
    assert "on no split measured yet: `absent`" in told


def test_the_correlation_is_over_relations():
    value, (low, high) = correlation([(0.1, 0.2), (0.5, 0.5), (0.9, 0.8), (0.3, 0.4)])
    assert value == pytest.approx(0.99, abs=0.02)
    assert low <= value <= high
    assert correlation([(0.5, 0.1), (0.5, 0.9), (0.5, 0.3)])[0] == 0.0
    with pytest.raises(ValueError, match="three relations"):
        correlation([(0.1, 0.1)])


@pytest.fixture
def made_up(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    names = ["Ab", "Bo", "Cu", "Da", "Ef", "Fi", "Gu", "Ho", "Ig", "Jo", "Ku", "La"]
    samples = [{"subject": each, "object": "xy"[i % 2]} for i, each in enumerate(names)]
    document = {"name": "made up", "prompt_templates": ["{} is"], "samples": samples}
    (folder / "one.json").write_text(json.dumps(document))
    (folder / "broken.json").write_text("{")
    return folder


def test_a_run_that_was_stopped_goes_on_where_it_was(
    made_up, tiny_subject, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(relations, "load_subject", lambda name, settings: tiny_subject)
    ran = []

    def run_trial(subject, relation, plan, seed, step, **options):
        ran.append(seed)
        return seed

    monkeypatch.setattr(relations, "run_trial", run_trial)
    monkeypatch.setattr(relations, "record", lambda seed: _trial(seed, 0.8, 0.9))
    rows, out = tmp_path / "rows.jsonl", tmp_path / "table.md"
    arguments = ["--folder", str(made_up), "--rows", str(rows), "--out", str(out)]
    assert relations.main([*arguments, "--seeds", "0", "1"]) == 0
    assert ran == [0, 1]
    assert "left out: relation file" in capsys.readouterr().err
    # Cut off in the middle of a row, as a run that was killed leaves it.
    rows.write_text(rows.read_text()[:-40])
    assert relations.main([*arguments, "--seeds", "0", "1", "2"]) == 0
    assert ran == [0, 1, 1, 2]
    assert [row.trial.seed for row in read_rows(rows, relations.Row)] == [0, 1, 2]
    assert "`one.json`" in out.read_text()
    assert "3 splits" in out.read_text()
    assert relations.main([*arguments, "--seeds", "0", "1", "2", "--table-only"]) == 0
    assert ran == [0, 1, 1, 2]


def test_rows_of_ours_are_those_of_the_checkout_and_a_folders_are_not(tmp_path):
    settings = Settings(home=tmp_path)
    ours = relations._default_rows(settings, None)
    assert ours.parts[-3:] == ("docs", "evals", "relations.jsonl")
    assert read_rows(ours, relations.Row)
    assert relations._default_rows(settings, tmp_path).is_relative_to(tmp_path)


def test_a_foreign_line_is_named(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("nonsense\n{}\n")
    with pytest.raises(ValueError, match="line 1 is no row"):
        read_rows(path, relations.Row)
