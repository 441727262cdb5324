import json

import pytest
import torch
from safetensors.torch import save_file

from dragoman.core.protocols import ChatReply
from dragoman.core.records import ChatIdentity
from dragoman.tools.captioning.score import score_caption
from dragoman.tools.context import ToolContext
from dragoman.tools.subjects.planted import plant


class SaysYes:
    """A chat model without probabilities that says yes to everything."""

    def __init__(self, kind="scripted"):
        self.identity = ChatIdentity(kind=kind, model="yes")
        self.asked = []
        """How many texts each call was about."""

    def complete(self, request, *, on_text=None, cancelled=None):
        n = request.messages[0].content.count('{"id": ')
        self.asked.append(max(n, 1))
        answers = [{"id": number, "answer": "yes"} for number in range(1, n + 1)]
        said = {"answers": answers} if n else {"answer": "yes"}
        text = json.dumps(said) if request.json_schema else "yes"
        return ChatReply(text=text, finish_reason="stop", prompt_tokens=5, completion_tokens=1)

    def close(self):
        pass


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    planted = plant(0)
    home = tmp_path_factory.mktemp("score")
    names = {unit.name: unit for unit in planted.truth.units}
    rare = [*names["colours"].words, *names["animals"].words]
    # "silver" is on the vocabulary's list of colours as well, and the unit does not answer to it.
    metals = [word for word in names["metals"].words if word != "silver"]
    frequent = [*metals, *names["body parts"].words]
    lines = [
        " ".join(
            (rare[(n * 7 + k) % len(rare)] if (n + k * 5) % 53 == 0 else frequent[(n + 3 * k) % 23])
            for k in range(30)
        )
        for n in range(240)
    ]
    corpus = home / "texts.txt"
    corpus.write_text("\n".join(lines))

    def call(caption, chat=None, **more):
        context = ToolContext(
            planted.subject, 0, home, home / "artifacts", home / "cache", chat=chat
        )
        arguments = {
            "layer": planted.truth.unit_layer,
            "neuron": names["colours"].neuron,
            "caption": caption,
            "corpus": str(corpus),
            "effort": "quick",
            **more,
        }
        parsed = score_caption.parse(arguments)
        experiment = score_caption.experiment(
            parsed, subject_digest=planted.subject.identity.digest, seed=0
        )
        return score_caption.run(context, experiment)

    return call, planted.truth, names


def test_a_true_caption_holds_and_a_false_one_does_not(lab):
    call, truth, names = lab
    scope = f"unit {truth.unit_layer}.{names['colours'].neuron}"
    true, false = call("words about colours"), call("words about animals")
    assert true.output["holds"] is True
    assert true.output["read_as"] == "words about colours"
    assert true.output["judged_by"] == "rule"
    detection = true.measurement("detection", scope)
    assert detection.value > 0.8
    assert detection.ci95[0] > detection.baseline
    assert true.measurement("fuzzing", scope).value > 0.9
    assert true.measurement("simulation", scope).value > 0.9
    assert true.measurement("causal_effect", scope) is not None
    assert false.output["holds"] is False
    assert false.measurement("detection", scope).value < 0.7
    assert false.measurement("causal_effect", scope) is None


def test_latents_of_an_autoencoder_are_scored_at_the_site_that_it_reads(lab, tmp_path):
    call, truth, names = lab
    neuron, width = names["colours"].neuron, 80
    file = tmp_path / "sae.safetensors"
    # Latent 3 stands for the neuron, the others for others.
    order = torch.tensor([(neuron - 3 + latent) % width for latent in range(width)])
    inward = torch.eye(width)[:, order].contiguous()
    outward = inward.T.contiguous()
    save_file({"W_enc": inward, "b_enc": torch.zeros(width), "W_dec": outward}, file)
    hook = {"hook_name": f"blocks.{truth.unit_layer}.mlp.hook_post"}
    (tmp_path / "cfg.json").write_text(json.dumps(hook))
    found = call("words about colours", kind="latent", dictionary=str(file), neuron=3)
    scope = f"unit latent.{truth.unit_layer}.3"
    assert found.output["holds"] is True
    assert found.measurement("detection", scope).value > 0.8
    assert found.measurement("causal_effect", scope) is not None
    lacking = call("words about colours", kind="latent", neuron=3)
    assert "latents need the safetensors file" in lacking.error
    elsewhere = call("words about colours", kind="latent", dictionary=str(file), layer=0)
    assert f"name layer {truth.unit_layer}" in elsewhere.error


def test_free_words_are_judged_by_meaning_and_said_to_be(lab):
    call, *_ = lab
    result = call("mysterious vibes")
    assert result.output["predicate"] is None
    assert result.output["judged_by"] == "likelihood"
    assert any("nearness in meaning" in caveat for caveat in result.caveats)
    assert {each.metric for each in result.measurements} >= {"detection", "likelihood"}


def test_a_chat_model_judges_too_and_its_calls_are_counted(lab):
    call, *_ = lab
    chat = SaysYes()
    result = call("words about colours", chat=chat)
    scores = {each.metric: each for each in result.measurements}
    assert scores["chat_detection"].value == 0.5
    assert scores["chat_fuzzing"].n == 16
    # Two questions about the unit and about two others that make the floor, two calls each.
    assert result.output["chat_texts_per_call"] == max(chat.asked) == 8
    assert result.output["chat_calls"] == len(chat.asked) == 12
    assert result.output["chat_calls_per_unit"] == 12
    assert result.output["chat_replies_from_cache"] == 0
    again = call("words about colours", chat=SaysYes())
    assert again.output["chat_calls"] == again.output["chat_calls_per_unit"] == 0
    assert again.output["chat_replies_from_cache"] == 12
    assert again.measurements == result.measurements


def test_the_local_chat_model_judges_one_text_a_call(lab):
    call, *_ = lab
    chat = SaysYes("local")
    result = call("words about colours or metals", chat=chat)
    assert result.output["chat_texts_per_call"] == max(chat.asked) == 1
    # One call found out that it tells no probabilities.
    n_texts = result.output["chat_calls"] - 1 + result.output["chat_replies_from_cache"]
    assert result.output["chat_calls"] == len(chat.asked) > 12
    assert 2 * 16 < n_texts <= 2 * 3 * 16


def test_a_caption_from_outside_is_escaped(lab):
    call, *_ = lab
    result = call('words about colours \x1b[31m\u202e"')
    assert "\x1b" not in result.output["caption"]
    assert "\u202e" not in result.output["caption"]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"layer": 9}, "layer 9 is outside 0..5"),
        ({"neuron": 80}, "neuron 80 is outside 0..79"),
        ({"corpus": "nowhere.txt"}, "corpus: nowhere.txt"),
    ],
)
def test_bad_arguments_are_results_that_name_them(lab, arguments, named):
    call, *_ = lab
    result = call("words about colours", **arguments)
    assert result.status == "error"
    assert named in result.error


def test_a_unit_that_is_never_active_is_said_to_be_dead(lab, tmp_path):
    call, _, names = lab
    corpus = tmp_path / "metals.txt"
    words = names["metals"].words
    corpus.write_text("\n".join(" ".join(words[n % 12 :]) + f" {words[n % 7]}" for n in range(60)))
    result = call("words about colours", corpus=str(corpus))
    assert result.status == "error"
    assert "dead on this corpus" in result.error
