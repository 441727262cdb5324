"""Specifications: what is read, and that every complaint names its line and the valid values."""

from pathlib import Path

import pytest

from dragoman.agent.specification import (
    Budgets,
    GateRule,
    Specification,
    default_specification,
    load_specification,
)
from dragoman.core.errors import UserError


def write(folder: Path, text: str) -> Path:
    path = folder / "audit.yaml"
    path.write_text(text, "utf-8")
    return path


def test_reads_every_key(tmp_path: Path) -> None:
    (tmp_path / "texts.jsonl").write_text("{}")
    path = write(
        tmp_path,
        """
subject: smollm2
reference: owner/other
questions:
  - "  Which capitals does it know?  "
  - Are plurals decoded linearly?
tools: [approximate_relation, predict_next]
relations: [country_capital]
corpus: texts.jsonl
budgets: {steps: 5, tokens: 20_000, minutes: 2, usd: 0.5}
gates:
  - {metric: faithfulness, relation: country_capital, at_least: 0.6}
  - {claim: knows_relation, status: replicated}
seed: 7
quick: true
""",
    )
    assert load_specification(path) == Specification(
        subject="smollm2",
        reference="owner/other",
        questions=("Which capitals does it know?", "Are plurals decoded linearly?"),
        tools=("approximate_relation", "predict_next"),
        relations=("country_capital",),
        corpus=str(tmp_path / "texts.jsonl"),
        budgets=Budgets(steps=5, tokens=20_000, minutes=2.0, usd=0.5),
        gates=(
            GateRule(metric="faithfulness", relation="country_capital", at_least=0.6),
            GateRule(claim="knows_relation", status="replicated"),
        ),
        seed=7,
        quick=True,
    )


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("questions: [a]\n\nquestoins: [b]\n", ":3: key 'questoins' is unknown (did you mean"),
        ("questions: [a]\nbudgets:\n  minuts: 1\n", ":3: key 'minuts' is unknown (did you mean"),
        ("questions: [a]\nbudgets:\n  minuts: 1\n", "known: minutes, steps, tokens, usd"),
        ("questions: [a]\nseed: 1\nseed: 2\n", ":3: 'seed' is given twice"),
        ("questions: []\n", ":1: 'questions' is empty"),
        ("seed: 1\nquestions:\n  - a\n  - '  '\n", ":4: 'questions.1' should have at least 1"),
        ("questions: one\n", ":1: 'questions' should be a valid"),
        ("questions: [1]\n", ":1: 'questions.0' should be a valid string"),
        ("subject: smollm2\n", ":1: 'questions' is missing"),
        ("questions: [a]\nseed: -1\n", ":2: 'seed' should be greater than or equal to 0"),
        ("questions: [a]\nseed: '3'\n", ":2: 'seed' should be a valid integer"),
        ("questions: [a]\nquick: 1\n", ":2: 'quick' should be a valid boolean"),
        ("questions: [a]\nbudgets:\n  usd: .inf\n", ":3: not a number"),
        ("questions: [a]\ngates:\n  - metric: m\n", ":3: gates.0: a gate on a metric has 'at_l"),
        ("questions: [a]\ngates:\n  - status: refuted\n", "either 'metric' or 'claim'"),
        ("questions: [a]\ngates:\n  - claim: c\n    status: proven\n", ":4: 'gates.0.status' sho"),
        ("questions: [a]\ngates:\n  - claim: c\n", "one of observed, correlated"),
        ("questions: [a]\ntools:\n  - predict\n", ":3: tool 'predict' is unknown (did you mean"),
        ("questions: [a]\nrelations: [capital]\n", ":2: relation 'capital' is unknown"),
        ("questions: [a\n", ":2: not valid YAML"),
        ("questions: [a]\n---\nseed: 1\n", "not valid YAML"),
        ("- a\n", ":1: a specification is a mapping with the keys subject, reference, questions"),
        ("", "a specification is a mapping"),
        ("[1]: 2\n", ":1: a key is plain text"),
        ("questions: &q [a]\ntools: *q\n", "anchors and aliases are not read"),
        ("questions: !!python/object/apply:os.getcwd []\n", "is not read"),
        pytest.param("[" * 3000, "nested too deep", id="deep"),
        ("questions: [a]\nsubject: \x01\n", "not valid YAML"),
    ],
)
def test_complaint_names_the_line_and_what_is_valid(
    tmp_path: Path, text: str, complaint: str
) -> None:
    path = write(tmp_path, text)
    with pytest.raises(UserError) as raised:
        load_specification(path, known_tools={"predict_next"}, known_relations={"country_capital"})
    message = str(raised.value)
    assert complaint in message
    assert message.startswith(str(path))
    assert "\n" not in message


def test_a_path_to_a_relation_is_looked_for_beside_the_file(tmp_path: Path) -> None:
    (tmp_path / "mine.json").write_text("{}")
    path = write(tmp_path, "questions: [a]\nrelations: [mine.json, country_capital]\n")
    specification = load_specification(path, known_relations={"country_capital"})
    assert specification.relations == (str(tmp_path / "mine.json"), "country_capital")


@pytest.mark.parametrize("kind", ["missing", "folder", "binary", "huge"])
def test_files_that_are_no_specification(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "audit.yaml"
    if kind == "folder":
        path.mkdir()
    elif kind == "binary":
        path.write_bytes(b"\xff\xfe\x00")
    elif kind == "huge":
        path.write_bytes(b"#" * (2 << 20))
    said = {
        "missing": "no such file",
        "folder": "is a folder",
        "binary": "not UTF-8",
        "huge": "larger than 1 MB",
    }
    with pytest.raises(UserError, match=said[kind]):
        load_specification(path)


def test_the_default_audit_asks_one_question_for_each_method() -> None:
    specification = default_specification()
    assert specification.subject == "smollm2"
    assert len(specification.questions) == 3
    assert [
        word in question
        for question, word in zip(
            specification.questions, ("capital", "edit", "eurons"), strict=True
        )
    ] == [True, True, True]
