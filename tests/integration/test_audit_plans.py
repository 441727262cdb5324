"""What is planned by the words of a question reaches the report as a claim."""

from typing import Any


def test_an_open_prompt_gives_a_claim_about_the_token_that_came_first(audits: Any) -> None:
    question = "How does 'The capital of France is' go on?"
    report = audits.run(audits.specification(questions=[question]))
    (claim,) = report.claims
    (hypothesis,) = report.hypotheses
    assert hypothesis.template == "one_word_follows"
    assert hypothesis.arguments == {"prompt": "The capital of France is"}
    (effect,) = claim.effects
    assert effect.scope.startswith("token ")
    assert effect.scope in claim.text.replace("{{", "{").replace("}}", "}")


def test_a_layer_in_the_question_confines_the_test_to_it(audits: Any, relation_file: str) -> None:
    report = audits.run(
        audits.specification(
            questions=["Are the letters decoded linearly at layer 1?"],
            relations=[relation_file],
            tools=["approximate_relation"],
        )
    )
    (hypothesis,) = report.hypotheses
    assert hypothesis.slots == {"relation": relation_file, "layer": 1}
    assert hypothesis.arguments["layer"] == 1
