"""Which claims count as false, which words are a unit's own, and what the page says of them."""

import numpy as np
import pytest
import torch

from dragoman.evals import causal_claims
from dragoman.evals.causal_claims import Study, introduction
from dragoman.evals.causal_claims_table import Counts, Row, render
from dragoman.tools.captioning.corpus import Corpus
from dragoman.tools.captioning.units import UnitKind, UnitLayer
from dragoman.tools.context import ToolContext
from dragoman.tools.subjects.planted import plant


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    planted = plant(0)
    home = tmp_path_factory.mktemp("home")
    words = [word for unit in planted.truth.units for word in unit.words]
    generator = np.random.default_rng(0)
    documents = tuple(" ".join(generator.choice(words, 40)) for _ in range(120))
    context = ToolContext(planted.subject, 0, home, home / "artifacts", home / "cache")
    layers: dict[UnitKind, tuple[int, ...]] = {"mlp": (planted.truth.unit_layer,)}
    corpus = Corpus(id="x", description="120 texts", documents=documents)
    return Study(context, corpus, layers, n_units=40, effort="quick")


@pytest.fixture(scope="module")
def rows(study):
    return {name: study.row(name) for name in study.units}


def test_units_are_asked_about_the_words_of_others(study, rows):
    asked = [row for row in rows.values() if row.others.n]
    assert len(asked) >= 5
    assert all(row.others.n < len(rows) for row in asked)
    assert all(row.own is not None and row.own.n == 1 for row in asked)


def test_words_of_its_own_are_none_that_it_should_not_act_on(study, rows, monkeypatch):
    row = next(row for row in rows.values() if row.own is not None)
    where, unit = study.units[row.unit]
    layer = study._captioned(where)
    column = layer.units.index(unit)
    own, opposed = study._own_words(where, unit)
    free = np.flatnonzero(~(own | opposed))
    said, foreign = np.zeros_like(own), np.zeros_like(own)
    said[free[:8]], foreign[free[8:16]] = True, True
    others = [said, own, opposed, foreign]
    n_without = len(layer.units) - 1 - len(others)
    named: list[object] = [*others, *[None] * n_without]
    named.insert(column, said)
    monkeypatch.setattr(study, "_captioned", lambda _: layer._replace(named=tuple(named)))
    # Neither what its own caption names, nor what it writes most of, nor most against.
    assert study.row(row.unit).others.n == 1


def test_own_words_are_those_that_a_unit_writes_most_of(study):
    where, unit = next(iter(study.units.values()))
    subject = study.context.subject
    weight = subject.anatomy.blocks[where.layer].down_projection.weight
    written = torch.randn(len(weight), generator=torch.Generator().manual_seed(0))
    before = weight[:, unit].detach().clone()
    with torch.no_grad():
        weight[:, unit] = written
        own, opposed = study._own_words(where, unit)
        weight[:, unit] = before
    norm = subject.anatomy.final_norm.weight / (written.square().mean() + 1e-6).sqrt()
    logits = (written * norm) @ subject.model.get_output_embeddings().weight.T
    assert set(np.flatnonzero(own).tolist()) == set(logits.topk(10).indices.tolist())
    assert set(np.flatnonzero(opposed).tolist()) == set((-logits).topk(10).indices.tolist())
    component = UnitLayer(kind="resid", layer=where.layer)
    assert study._own_words(component, 3)[0].sum() == 10
    assert study._own_words(UnitLayer(kind="head", layer=where.layer), 0) == (None, None)


def test_a_run_that_was_stopped_goes_on(study, rows, tmp_path, monkeypatch, capsys):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(f"{row.model_dump_json()}\n" for row in rows.values()))
    names = [*study.units]
    monkeypatch.setattr(study, "row", lambda name: pytest.fail(f"{name} was made again"))
    monkeypatch.setattr(causal_claims, "Study", lambda *_, **__: study)
    monkeypatch.setattr(causal_claims, "load_smollm2", lambda folder: study.context.subject)
    monkeypatch.setattr(causal_claims, "sample_corpus", lambda context, n: study.corpus)
    assert causal_claims.main(["--rows", str(path), "--units", "40"]) == 0
    page = capsys.readouterr().out
    assert introduction(study, 40, "quick") in page
    assert f"| MLP neurons | {study.units[names[0]][0].layer} | {len(names)} |" in page


def _row(unit, others, own=None):
    return Row(made="m", kind="mlp", layer=3, unit=unit, others=others, own=own)


def _counts(n, claimed, by_units, p=0, p_by_units=0):
    return Counts(n=n, claimed=claimed, claimed_by_units=by_units, p=p, p_by_units=p_by_units)


def test_rates_are_means_over_units():
    listed = [
        _row("3.1", _counts(10, 0, 10, 1, 10), _counts(1, 1, 1)),
        _row("3.2", _counts(20, 0, 0, 0, 2), _counts(1, 0, 1)),
        _row("3.3", _counts(0, 0, 0)),
    ]
    page = render(listed, "# Title")
    (line,) = [each for each in page.splitlines() if each.startswith("| MLP")]
    cells = [each.strip() for each in line.strip("|").split("|")]
    assert cells[:4] == ["MLP neurons", "3", "3", "30"]
    means = [cell.split()[0] for cell in cells[4:]]
    assert means == ["0.500", "0.000", "0.550", "0.050", "1.000", "0.500"]
    # None of two units is not known to be none of all.
    assert cells[5] == "0.000 [0.000, 0.658]"
    assert "all" not in page
