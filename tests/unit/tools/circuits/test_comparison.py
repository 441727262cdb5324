"""Comparing relations' maps: identities of the angles, planted truth, bad arguments."""

import json

import pytest
import torch

from dragoman.core.errors import ToolError
from dragoman.tools.circuits.compare_tool import compare_relations
from dragoman.tools.circuits.comparison import (
    cluster,
    overlap,
    principal_angles,
    random_overlaps,
)
from dragoman.tools.context import ToolContext
from dragoman.tools.subjects.planted import plant


def run_tool(subject, folder, arguments):
    experiment = compare_relations.experiment(
        compare_relations.parse(arguments), subject_digest=subject.identity.digest, seed=0
    )
    context = ToolContext(
        network=subject,
        seed=0,
        home=folder,
        artifacts=folder / "artifacts" / "one",
        cache=folder / "cache",
    )
    return compare_relations.run(context, experiment)


def _basis(*columns):
    return torch.eye(6)[:, list(columns)]


def test_the_same_subspace_overlaps_wholly_whatever_its_basis():
    rotated, _ = torch.linalg.qr(torch.tensor([[1.0, 2.0], [3.0, -1.0]]))
    first = _basis(0, 1)
    assert overlap(first, first @ rotated).item() == pytest.approx(1)
    assert principal_angles(first, first @ rotated) == pytest.approx([0, 0], abs=0.1)


def test_orthogonal_subspaces_do_not_overlap_and_half_shared_ones_by_half():
    assert overlap(_basis(0, 1), _basis(2, 3)).item() == 0
    assert overlap(_basis(0, 1), _basis(1, 2)).item() == pytest.approx(0.5)
    assert principal_angles(_basis(0, 1), _basis(1, 2)) == pytest.approx([0, 90], abs=0.1)


def test_random_subspaces_overlap_by_rank_over_dimension():
    found = random_overlaps(200, 20, 0)
    assert sum(found) / len(found) == pytest.approx(0.1, abs=0.01)


def test_alike_things_are_joined_and_unlike_ones_are_not():
    alike = torch.eye(5)
    for i, j in ((0, 3), (1, 4)):
        alike[i, j] = alike[j, i] = 0.9
    assert cluster(alike, 0.5) == [[0, 3], [1, 4], [2]]
    assert cluster(torch.ones(3, 3), 0.5) == [[0, 1, 2]]


@pytest.fixture(scope="module")
def planted():
    return plant()


def test_a_relation_and_its_other_half_share_what_is_planted(planted, tmp_path):
    """Two files that hold half of the planted facts each are one relation, and are found to be."""
    whole = planted.write_relations(tmp_path / "relations")["linear"]
    document = json.loads(whole.read_text())
    paths = []
    for half in (0, 1):
        samples = document["samples"][half * 30 : half * 30 + 30]
        path = tmp_path / f"half{half}.json"
        path.write_text(json.dumps({**document, "name": f"half {half}", "samples": samples}))
        paths.append(str(path))
    rank = planted.truth.linear_rank
    result = run_tool(
        planted.subject,
        tmp_path,
        {"relations": paths, "layer": 2, "rank": rank, "effort": "quick"},
    )
    assert result.status == "ok", result.error
    for side in ("reads", "writes"):
        between = result.measurement("subspace_overlap", f"{side}: half 0 and half 1")
        assert between.value > 0.95
        assert between.baseline < 0.15
    assert result.output["clusters"] == [["half 0", "half 1"]]
    assert {each.scope for each in result.controls} >= {"reads: two halves of half 0"}
    assert {each.name for each in result.artifacts} == {"reads.svg", "writes.svg", "overlap.json"}


def test_a_relation_that_is_not_known_is_left_out_by_name(planted, tmp_path):
    paths = planted.write_relations(tmp_path / "relations")
    result = run_tool(
        planted.subject,
        tmp_path,
        {"relations": [str(paths["linear"]), str(paths["absent"])], "effort": "quick"},
    )
    assert result.status == "ok"
    assert not result.measurements
    assert result.caveats[0].startswith("planted fear is left out: ")


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"relations": ["country_capital", "Country-Capital"]}, "named twice"),
        ({"layer": 99}, "layer 99 is outside 0..2"),
        ({"layer": 2}, "choose one of 0..1"),
        ({"rank": 300}, "rank 300 is outside 1..16"),
    ],
)
def test_bad_arguments_are_named_with_the_range(tiny_subject, tmp_path, given, told):
    arguments = {"relations": ["country_capital", "verb_past_tense"], **given}
    assert told in run_tool(tiny_subject, tmp_path, arguments).error


def test_a_single_relation_cannot_be_compared():
    with pytest.raises(ToolError, match=r"'relations'.*at least 2 items"):
        compare_relations.parse({"relations": ["country_capital"]})
