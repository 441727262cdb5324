"""Only what fits the schema comes through; everything else ends in a complaint or an end."""

import json
from enum import Enum
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from dragoman.agent.chat_scripted import ScriptedChat
from dragoman.agent.structured import REPAIRS, UnusableReply, ask, json_schema, without_fence
from dragoman.core.errors import ChatError, ExitCode
from dragoman.core.protocols import ChatMessage, ChatReply, ChatRequest
from dragoman.core.records import Site

REQUEST = ChatRequest(purpose="plan", messages=(ChatMessage(role="user", content="choose"),))


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Choice(BaseModel):
    layer: Annotated[int, Field(ge=0, le=29)]
    tool: Literal["approximate_relation", "edit_representation"]
    weight: float = 0.5
    why: Annotated[str, Field(max_length=80)] | None = None


class Nested(BaseModel):
    site: Site
    others: list[Site]
    colour: Colour
    only: Literal["x"]


GOOD = '{"layer": 3, "tool": "edit_representation", "weight": 1.5, "why": null}'


def test_a_good_reply_needs_one_call() -> None:
    chat = ScriptedChat([GOOD])
    choice = ask(chat, REQUEST, Choice)
    assert choice == Choice(layer=3, tool="edit_representation", weight=1.5)
    (sent,) = chat.requests
    assert sent.json_schema == json_schema(Choice)
    assert sent.messages == REQUEST.messages


def test_schema_is_closed_inlined_and_keeps_bounds() -> None:
    schema: Any = json_schema(Nested)
    text = json.dumps(schema)
    assert "$ref" not in text
    assert "$defs" not in text
    assert "default" not in text
    assert schema["required"] == ["site", "others", "colour", "only"]
    site = schema["properties"]["others"]["items"]
    assert site["additionalProperties"] is False
    assert site["required"] == ["layer", "kind"]
    assert site["properties"]["layer"]["minimum"] == 0
    assert schema["properties"]["colour"]["enum"] == ["red", "blue"]
    assert schema["properties"]["only"]["enum"] == ["x"]
    choice: Any = json_schema(Choice)
    assert choice["properties"]["layer"] == {"minimum": 0, "maximum": 29, "type": "integer"}


def test_a_schema_without_end_is_refused() -> None:
    with pytest.raises(TypeError, match="Tree contains itself"):
        json_schema(Tree)


class Tree(BaseModel):
    children: list["Tree"]


@pytest.mark.parametrize(
    ("bad", "complaint"),
    [
        ('{"layer": 41, "tool": "edit_representation"}', "less than or equal to 29, not 41"),
        ('{"layer": "3", "tool": "edit_representation"}', "layer: Input should be a valid integer"),
        ('{"layer": true, "tool": "edit_representation"}', "layer"),
        ('{"layer": 3, "tool": "delete_disk"}', "'approximate_relation' or 'edit_representation'"),
        ('{"layer": 3}', "tool: Field required"),
        ('{"layer": 3, "tool": "edit_representation", "shell": "rm"}', "shell: Extra inputs"),
        ('{"layer": 3, "tool": "edit_representation", "weight": NaN}', "NaN is not a JSON number"),
        ('{"layer": 3, "tool": "edit_representation", "weight": 1e999}', "1e999 is too large"),
        ('{"layer": ' + "9" * 5000 + "}", "limit"),
        ("[" * 200_000, "nested too deeply"),
        ('{"layer": 3, "tool": "\ud800"}', "unicode"),
        ('{"layer": 3, "tool": "\\ud800"}', "Invalid JSON"),
        ("", "not JSON"),
        ("I would choose layer 3.", "not JSON"),
        ("null", "the reply"),
    ],
)
def test_a_bad_reply_is_shown_its_fault_and_repaired(bad: str, complaint: str) -> None:
    chat = ScriptedChat([bad, GOOD])
    assert ask(chat, REQUEST, Choice).layer == 3
    repair = chat.requests[1].messages
    assert [message.role for message in repair] == ["user", "assistant", "user"]
    assert complaint in repair[2].content
    assert len(repair[1].content) <= 2000
    assert len(repair[2].content) <= 1000
    chat.requests[1].model_dump_json()  # can be sent: no surrogate is left in it


def test_repairs_end() -> None:
    chat = ScriptedChat(["no"] * 10)
    with pytest.raises(UnusableReply, match="'plan' in 4 tries") as caught:
        ask(chat, REQUEST, Choice)
    assert len(chat.requests) == REPAIRS + 1
    assert isinstance(caught.value, ChatError)
    assert caught.value.exit_code == ExitCode.CHAT_UNUSABLE
    assert "\n" not in str(caught.value)
    assert len(chat.requests[-1].messages) == 3, "old repairs do not pile up in the context"
    assert chat.requests[-1].seed != chat.requests[-2].seed


def test_a_cut_off_reply_is_never_accepted() -> None:
    class CutOff(ScriptedChat):
        def complete(self, request: ChatRequest, **options: Any) -> ChatReply:
            reply = super().complete(request, **options)
            return reply.model_copy(update={"finish_reason": "length"})

    chat = CutOff([GOOD, GOOD])
    with pytest.raises(UnusableReply, match="cut off"):
        ask(chat, REQUEST, Choice, repairs=1)


@pytest.mark.parametrize("fence", ["```json\n{}\n```", "```\n{}\n```", " \n```JSON\n{}```  "])
def test_a_fence_is_taken_off(
    fence: str,
) -> None:
    assert without_fence(fence) == "{}"


def test_text_with_two_fences_stays_as_it_is() -> None:
    assert without_fence("```") == "```"
    assert without_fence("``````") == "``````"


hostile = st.one_of(
    st.text(),
    st.text(alphabet=st.characters(min_codepoint=0xD7F0, max_codepoint=0xE010)),
    st.text(alphabet='{}[]":,0123456789.eE+-naNIfulltre\\u'),
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    ).map(json.dumps),
    st.fixed_dictionaries(
        {"layer": st.integers() | st.floats(), "tool": st.text()},
        optional={"weight": st.floats(), "why": st.text(), "more": st.none()},
    ).map(json.dumps),
)


@given(hostile)
def test_any_reply_is_a_valid_choice_or_a_clean_end(text: str) -> None:
    try:
        choice = ask(ScriptedChat([text]), REQUEST, Choice, repairs=0)
    except UnusableReply as error:
        message = str(error)
        message.encode("utf-8")
        assert "\n" not in message
    else:
        assert 0 <= choice.layer <= 29
        assert choice.weight == choice.weight
