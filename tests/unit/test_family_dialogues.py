# SPDX-License-Identifier: Apache-2.0
"""Two rounds with a tool through preprocessing and postprocessing, in formats of different shape.

Markers are special tokens of the vocabulary; the answer comes id by id, in lumps, and at once.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from common.answer_options import AnswerOptions
from common.chat.text_arguments import text_arguments
from common.checkpoint import Checkpoint
from common.finish_reason import FinishReason
from common.tokenizer import ChatTokenizer
from families.detection import find_styler
from postprocessing.postprocessor import Postprocessor
from preprocessing.engine_traits import engine_traits
from preprocessing.preprocessor import Preprocessor
from preprocessing.prompt import PromptBuilder
from tests.support.family_dialogues import (
    ANSWER,
    ARGUMENTS,
    DIALOGUES,
    JSON_ARGUMENTS,
    NAME,
    QUESTION,
    RESULT,
    SECOND_THOUGHT,
    THOUGHT,
    TOOL,
    FamilyDialogue,
    write_checkpoint,
)
from tests.support.model_requests import ModelRequest, outputs


class Family:
    """The models before and behind the engine, with one family's checkpoint."""

    def __init__(self, dialogue: FamilyDialogue, folder: Path) -> None:
        self.dialogue = dialogue
        checkpoint = Checkpoint.load(folder)
        self.tokenizer = ChatTokenizer.load(folder)
        styler = find_styler(checkpoint)
        builder = PromptBuilder(checkpoint, self.tokenizer, styler)
        self._preprocessor = Preprocessor(builder, engine_traits("vllm", guided_decoding=True))
        self.answer_format = builder.answer_format
        self._ends = checkpoint.end_ids
        self._postprocessor = Postprocessor(self.tokenizer.backend, self.answer_format, frozenset(self._ends))

    def ask(
        self, messages: list[dict[str, Any]], text: str, sizes: list[int], end: int = 0
    ) -> tuple[str, dict[str, Any]]:
        """The prompt of a chat, and the message of the answer that the engine gives as ids in groups of these sizes."""
        options = AnswerOptions(chat=True, tools=True, text_arguments=text_arguments([TOOL]))
        parameters = options.to_parameters()
        body = json.dumps({"messages": messages, "tools": [TOOL]})
        (response,) = self._preprocessor.execute([ModelRequest("r", parameters, messages=body)])  # type: ignore[list-item]
        engine_input = outputs(response)
        prompt = self.tokenizer.backend.decode(engine_input["input_ids"], skip_special_tokens=False)
        state = {"reasoning_open": int(engine_input["reasoning_open"][0])} if "reasoning_open" in engine_input else {}
        ids = [*self.tokenizer.encode(text, add_special_tokens=False), self._ends[end]]
        answers = []
        while ids:
            size = sizes[min(len(answers), len(sizes) - 1)]
            part, ids = ids[:size], ids[size:]
            last = {} if ids else {"engine_finish_reason": int(FinishReason.END_ID)}
            request = ModelRequest(
                "r", parameters, output_ids=[part], stream_id=1, **(last if answers else last | state)
            )
            answers += [outputs(each) for each in self._postprocessor.execute([request])]  # type: ignore[list-item]
        return prompt, _message(answers)

    def close(self) -> None:
        self._postprocessor.close()


def _message(answers: list[dict[str, Any]]) -> dict[str, Any]:
    """The fields of all responses as the frontend joins them."""
    message: dict[str, Any] = {"content": "", "reasoning_content": "", "calls": []}
    for answer in answers:
        message["content"] += answer["text_output"][0]
        message["reasoning_content"] += answer.get("reasoning_output", [""])[0]
        for delta in json.loads(answer.get("tool_calls", ["[]"])[0]):
            if "id" in delta:
                message["calls"].append({**delta, "function": {**delta["function"]}})
            else:
                message["calls"][delta["index"]]["function"]["arguments"] += delta["function"]["arguments"]
    return {**message, **{name: answers[-1][name][0] for name in ("finish_reason", "reasoning_tokens")}}


@pytest.fixture(scope="module", params=sorted(DIALOGUES))
def family(request: pytest.FixtureRequest, qwen3_tokenizer_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    dialogue = DIALOGUES[request.param]
    folder = write_checkpoint(dialogue, qwen3_tokenizer_dir, tmp_path_factory.mktemp(dialogue.name))
    found = Family(dialogue, folder)
    yield found
    found.close()


def test_the_format_is_found(family: Family) -> None:
    assert family.answer_format.tool_parser == family.dialogue.name
    assert (family.answer_format.reasoning is not None) == family.dialogue.thinks
    added = family.tokenizer.backend.get_added_tokens_decoder().values()
    assert set(family.dialogue.special) <= {token.content for token in added if token.special}


@pytest.mark.parametrize("sizes", [[1], [3, 1, 7, 2, 5], [1000]], ids=["ones", "lumps", "one-lump"])
def test_two_rounds(family: Family, sizes: list[int]) -> None:
    dialogue = family.dialogue
    messages: list[dict[str, Any]] = [{"role": "user", "content": QUESTION}]
    prompt, asked = family.ask(messages, dialogue.asked, sizes, end=-1)
    assert QUESTION in prompt and f'"{NAME}"' in prompt
    assert asked["content"] == ""
    assert asked["reasoning_content"] == (THOUGHT if dialogue.thinks else "")
    assert asked["finish_reason"] == "tool_calls"
    assert (asked["reasoning_tokens"] > 10) == dialogue.thinks
    (call,) = asked["calls"]
    assert call["function"]["name"] == NAME
    assert json.loads(call["function"]["arguments"]) == ARGUMENTS
    assert not dialogue.exact or call["function"]["arguments"] == JSON_ARGUMENTS
    assert dialogue.call_id in (None, call["id"])

    messages += [
        {"role": "assistant", "content": None, "reasoning_content": asked["reasoning_content"], "tool_calls": [call]},
        {"role": "tool", "tool_call_id": call["id"], "content": RESULT},
    ]
    prompt, answered = family.ask(messages, dialogue.answered, sizes)
    assert dialogue.spelled in prompt and RESULT in prompt
    assert not dialogue.thinks or THOUGHT in prompt
    assert (answered["content"], answered["calls"]) == (ANSWER, [])
    assert answered["reasoning_content"] == (SECOND_THOUGHT if dialogue.thinks else "")
    assert answered["finish_reason"] == "stop"
