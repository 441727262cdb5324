"""The audit end to end, with a scripted chat model: order, ledger, limits, resumption, report."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dragoman.agent.chat_scripted import ScriptedChat
from dragoman.agent.ledger import Ledger
from dragoman.agent.report_check import check_report
from dragoman.core.errors import UserError

QUESTION = "Does the subject know the letters?"


def _spec(audits: Any, relation_file: str, **values: Any) -> Any:
    return audits.specification(questions=[QUESTION], relations=[relation_file], **values)


def test_a_scripted_audit_ends_in_a_sound_report(
    audits: Any, relation_file: str, script: Callable[..., ScriptedChat]
) -> None:
    report = audits.run(_spec(audits, relation_file), script())
    assert report.outcome == "done"
    assert check_report(report) == []
    (claim,) = report.claims
    assert claim.status == "refuted"
    assert [sentence.claim_ids for sentence in report.verdict] == [(claim.id,)]
    assert report.narrative[0].text.startswith("The hypothesis was refuted")
    assert any("first token" in concern.text for concern in report.concerns)
    assert report.cost.chat_calls == 4
    phases = [event.phase for event in audits.events if event.kind == "phase_started"]
    assert phases == ["plan", "preregister", "run", "critique", "write", "check"]
    folder = audits.settings.reports_folder / report.id
    assert {path.name for path in folder.iterdir()} == {"report.json", "report.md", "report.html"}


def test_without_a_chat_model_the_report_says_so(audits: Any, relation_file: str) -> None:
    report = audits.run(_spec(audits, relation_file))
    assert report.chat.kind == "none"
    assert report.cost.chat_calls == 0
    assert [each.proposed_by for each in report.hypotheses] == ["fixed protocol"]
    page = (audits.settings.reports_folder / report.id / "report.html").read_text()
    assert "no chat model took part" in page.lower()


def test_prose_that_the_claims_do_not_carry_is_left_out(
    audits: Any, relation_file: str, script: Callable[..., ScriptedChat]
) -> None:
    boast = {"claim_ids": ["q1r1h1c1"], "text": "It knows 97% of the letters, refuted or not."}
    spin = {"claim_ids": ["q1r1h1c1"], "text": "The subject knows the letters very well."}
    offered = [json.dumps({"sentences": [each]}) for each in (boast, spin)]
    report = audits.run(_spec(audits, relation_file), script(narrative=offered))
    (sentence,) = report.narrative
    assert sentence.text.startswith("The accuracy misses what was predicted (refuted)")
    (deviation,) = report.deviations
    assert "97%" in deviation.reason
    assert "did not say that its claim is refuted" in deviation.reason


def test_an_unusable_plan_falls_back_to_the_protocol(
    audits: Any, relation_file: str, script: Callable[..., ScriptedChat]
) -> None:
    report = audits.run(_spec(audits, relation_file), script(plan=["I would rather not."] * 4))
    assert report.outcome == "done"
    assert report.hypotheses[0].proposed_by == "fixed protocol"
    assert any("protocol planned" in each.happened for each in report.deviations)


def test_an_entity_that_nobody_asked_about_is_not_edited(
    audits: Any, relation_file: str, script: Callable[..., ScriptedChat]
) -> None:
    slots = {"relation": relation_file, "entity": "iron", "new_object": "gas"}
    chat = script(plan=[json.dumps({"templates": ["single_edit_holds"]})], fill=[json.dumps(slots)])
    report = audits.run(_spec(audits, relation_file), chat)
    assert [each.proposed_by for each in report.hypotheses] == ["fixed protocol"]
    assert any("'iron'" in each.reason for each in report.deviations)


def test_a_failing_tool_is_a_negative_result(audits: Any, relation_file: str) -> None:
    Path(relation_file).write_text("[]")
    report = audits.run(_spec(audits, relation_file))
    assert report.claims == ()
    assert [each.kind for each in report.negative_results] == ["failed"]
    assert not report.coverage[0].searched


def test_a_step_budget_ends_the_run_with_a_partial_report(audits: Any, relation_file: str) -> None:
    spec = audits.specification(
        questions=[QUESTION, "Are the letters decoded linearly?"],
        relations=[relation_file],
        tools=["probe_knowledge", "approximate_relation"],
        budgets={"steps": 1},
    )
    report = audits.run(spec)
    assert report.outcome == "limit reached"
    assert "step budget" in report.outcome_reason
    assert len(report.claims) == 1
    resumed = audits.run(
        spec.model_copy(update={"budgets": spec.budgets.model_copy(update={"steps": 5})}),
        resume=report.id,
    )
    assert resumed.outcome == "done"
    assert resumed.claims[0] == report.claims[0]
    with Ledger(audits.settings.ledger_file) as ledger:
        for each in resumed.evidence:
            assert ledger.attempts(resumed.id, each.experiment_id) == 1


def test_one_relation_may_be_looked_at_twice_in_different_ways(
    audits: Any, relation_file: str, script: Callable[..., ScriptedChat]
) -> None:
    fills = [json.dumps({"relation": relation_file, "layer": layer}) for layer in (None, 1)]
    chat = script(
        plan=[json.dumps({"templates": ["decodes_linearly"]})] * 2,
        fill=fills,
        critique=[json.dumps({"concerns": [1]})] * 2,
    )
    spec = audits.specification(questions=[QUESTION, "And in layer 1?"], relations=[relation_file])
    report = audits.run(spec, chat)
    assert [each.hypothesis_id for each in audits.registrations(report.id)] == ["q1r1h1", "q2r1h1"]
    assert len(report.coverage) == 2


def test_gates_decide_the_outcome(audits: Any, relation_file: str) -> None:
    gates = [
        {"metric": "accuracy", "at_most": 0.9},
        {"claim": "does not know the relation", "status": "refuted"},
        {"metric": "accuracy", "at_least": 0.9},
    ]
    report = audits.run(_spec(audits, relation_file, gates=gates))
    assert [gate.passed for gate in report.gates] == [True, True, False]
    assert report.outcome == "gate failed"


def test_stopping_gives_a_partial_report_that_can_be_resumed(
    audits: Any, relation_file: str, script: Callable[..., ScriptedChat]
) -> None:
    chat = script()
    spec = _spec(audits, relation_file)
    stopped = audits.run(
        spec, chat, cancelled=lambda: any(e.kind == "tool_finished" for e in audits.events)
    )
    assert stopped.outcome == "interrupted"
    n_calls = len(chat.requests)
    resumed = audits.run(spec, chat, resume=stopped.id)
    assert resumed.outcome == "done"
    purposes = [request.purpose for request in chat.requests]
    assert purposes[:n_calls] == ["plan", "fill"]
    assert purposes[n_calls:] == ["critique", "narrative"]
    assert audits.kinds().count("tool_started") == 0


def test_a_lost_checkpoint_costs_nothing(
    audits: Any, relation_file: str, script: Callable[..., ScriptedChat]
) -> None:
    chat = script()
    spec = _spec(audits, relation_file)
    stopped = audits.run(
        spec, chat, cancelled=lambda: any(e.kind == "tool_finished" for e in audits.events)
    )
    (checkpoint,) = (audits.settings.home / "checkpoints").glob("*.sqlite3")
    checkpoint.write_bytes(b"not a database")
    resumed = audits.run(spec, chat, resume=stopped.id)
    assert resumed.outcome == "done"
    assert [request.purpose for request in chat.requests] == [
        "plan",
        "fill",
        "critique",
        "narrative",
    ]


def test_resuming_a_finished_audit_changes_nothing(
    audits: Any, relation_file: str, script: Callable[..., ScriptedChat]
) -> None:
    spec = _spec(audits, relation_file)
    report = audits.run(spec, script())
    folder = audits.settings.reports_folder / report.id
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    audits.run(spec, ScriptedChat([]), resume=report.id)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_other_weights_under_the_same_name_are_refused(
    audits: Any, relation_file: str, make_tiny: Any, subject_folder: str
) -> None:
    report = audits.run(_spec(audits, relation_file))
    make_tiny("llama", seed=5).model.save_pretrained(subject_folder)
    with pytest.raises(UserError, match="other weights under the same name"):
        audits.run(_spec(audits, relation_file), resume=report.id)


def test_a_question_that_asks_for_nothing_testable_is_not_searched(audits: Any) -> None:
    spec = audits.specification(questions=["What now?"], tools=["predict_next"])
    report = audits.run(spec)
    assert [each.kind for each in report.negative_results] == ["not searched"]


def test_the_reference_is_measured_beside_the_subject(
    audits: Any, relation_file: str, make_tiny: Any, tmp_path: Path
) -> None:
    other = make_tiny("qwen2")
    other.model.save_pretrained(tmp_path / "other")
    other.tokenizer.save_pretrained(tmp_path / "other")
    report = audits.run(_spec(audits, relation_file, reference=str(tmp_path / "other")))
    assert report.reference.digest == other.identity.digest
    assert any("reference" in each.scope for each in report.controls)
