# SPDX-License-Identifier: Apache-2.0
"""Prompts of each family, compared with what its own chat template renders."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from common.chat.request import ChatRequest
from common.checkpoint import Checkpoint
from common.errors import RequestError
from common.tokenizer import ChatTokenizer
from families.detection import find_styler
from families.parsers import AnswerFormat
from families.stylers.internvl2_5 import SYSTEM_PROMPT

HELLO = [{"role": "user", "content": "你好，你是谁？"}]
THINK = ("<think>", "</think>")


def tool(name: str, **properties: Any) -> dict[str, Any]:
    parameters = {"type": "object", "properties": properties, "required": list(properties)}
    return {"type": "function", "function": {"name": name, "description": "某工具", "parameters": parameters}}


WEATHER = tool("get_current_weather", location={"type": "string"}, unit={"enum": ["celsius", "fahrenheit"]})
POSTCODE = tool("get_postcode", location={"type": "string"})


def call(call_id: str, name: str, arguments: Any) -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def dialogue(arguments_of: Any) -> list[dict[str, Any]]:
    """The second round of asking for a postcode and the weather at once."""
    calls = [
        call("c1", "get_postcode", arguments_of({"location": "Boston"})),
        call("c2", "get_current_weather", arguments_of({"location": "Boston, MA", "unit": "fahrenheit"})),
    ]
    return [
        {"role": "user", "content": "What's the postcode of Boston and what's the weather like in Boston today?"},
        {"role": "assistant", "content": "", "tool_calls": calls},
        {"role": "tool", "content": "02138", "tool_call_id": "c1"},
        {"role": "tool", "content": "59.0", "tool_call_id": "c2"},
    ]


def chat(messages: Any, **fields: Any) -> ChatRequest:
    return ChatRequest.parse(json.dumps({"messages": messages, **fields}))


@pytest.fixture(scope="module")
def qwen3(qwen3_tokenizer_dir: Path) -> ChatTokenizer:
    return ChatTokenizer.load(qwen3_tokenizer_dir)


@pytest.fixture(scope="module")
def gemma3(gemma3_tokenizer_dir: Path) -> ChatTokenizer:
    return ChatTokenizer.load(gemma3_tokenizer_dir)


def with_template(tokenizer: ChatTokenizer, template: str | None) -> ChatTokenizer:
    changed = copy.copy(tokenizer._tokenizer)
    changed.chat_template = template
    return ChatTokenizer(changed)


def tiny(*special: str, template: str | None = None, bos: str | None = None) -> ChatTokenizer:
    """A tokenizer of nothing but special tokens."""
    backend = Tokenizer(models.WordLevel({"<unk>": 0}, unk_token="<unk>"))
    backend.add_special_tokens([*special, *([bos] if bos else [])])
    if bos:
        backend.post_processor = TemplateProcessing(
            single=f"{bos} $0", special_tokens=[(bos, backend.token_to_id(bos))]
        )
    fast = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token=bos)
    fast.chat_template = template
    return ChatTokenizer(fast)


def checkpoint(model_type: str, *architectures: str, path: Path = Path()) -> Checkpoint:
    return Checkpoint(path, model_type, architectures, 1000, 4096, (1,), 0)


class TestQwen3:
    styler = find_styler(checkpoint("qwen3"))

    def render(self, tokenizer: ChatTokenizer, messages: Any, **fields: Any) -> str:
        return self.styler.render(tokenizer, chat(messages, **fields))

    def test_token_counts_of_the_published_dialogue(self, qwen3: ChatTokenizer) -> None:
        on = self.render(qwen3, HELLO)
        off = self.render(qwen3, HELLO, chat_template_kwargs={"enable_thinking": False})
        assert on == "<|im_start|>user\n你好，你是谁？<|im_end|>\n<|im_start|>assistant\n"
        assert off == on + "<think>\n\n</think>\n\n"
        assert [len(qwen3.encode(text, add_special_tokens=False)) for text in (on, off)] == [13, 17]

    def test_answers(self, qwen3: ChatTokenizer) -> None:
        assert self.styler.answer_format(qwen3) == AnswerFormat(THINK, False, True, "hermes")
        assert self.styler.stop_ids(qwen3) == (151645,)

    def test_thinking_off_by_the_server_s_default(self, qwen3: ChatTokenizer) -> None:
        styler = find_styler(checkpoint("qwen3"), template_defaults={"enable_thinking": False})
        assert styler.render(qwen3, chat(HELLO)).endswith("<think>\n\n</think>\n\n")
        assert styler.render(qwen3, chat(HELLO, enable_thinking=True)).endswith("<|im_start|>assistant\n")
        assert styler.answer_format(qwen3) == AnswerFormat(THINK, False, False, "hermes")

    def test_a_model_that_always_thinks(self, qwen3: ChatTokenizer) -> None:
        # As in the Thinking-2507 checkpoints: no switch, and the tag is part of the prompt.
        template = (qwen3.template or "").replace(
            "{{- '<|im_start|>assistant\\n' }}", "{{- '<|im_start|>assistant\\n<think>\\n' }}"
        )
        template = template.replace("enable_thinking is defined and enable_thinking is false", "false")
        thinker = with_template(qwen3, template)
        assert self.render(thinker, HELLO).endswith("<|im_start|>assistant\n<think>\n")
        assert self.styler.answer_format(thinker) == AnswerFormat(THINK, True, True, "hermes")
        with pytest.raises(RequestError, match="always thinks") as error:
            self.render(thinker, HELLO, enable_thinking=False)
        assert error.value.param == "enable_thinking"

    def test_tool_results_render_as_the_template_renders_them(self, qwen3: ChatTokenizer) -> None:
        prompt = self.render(qwen3, dialogue(json.dumps), tools=[WEATHER, POSTCODE])
        assert prompt == qwen3._tokenizer.apply_chat_template(
            dialogue(lambda arguments: arguments), tools=[WEATHER, POSTCODE], tokenize=False, add_generation_prompt=True
        )
        assert (
            '{"name": "get_current_weather", "arguments": {"location": "Boston, MA", "unit": "fahrenheit"}}' in prompt
        )
        assert "某工具" in prompt
        assert prompt.count("<tool_response>") == 2

    def test_cjk_arguments_stay_readable(self, qwen3: ChatTokenizer) -> None:
        history = [*HELLO, {"role": "assistant", "tool_calls": [call("c", "f", '{"城市":"北京"}')]}]
        assert '"arguments": {"城市": "北京"}}' in self.render(qwen3, [*history, *HELLO])

    def test_tool_choice_none_hides_the_tools(self, qwen3: ChatTokenizer) -> None:
        assert self.render(qwen3, HELLO, tools=[WEATHER], tool_choice="none") == self.render(qwen3, HELLO)

    @pytest.mark.parametrize(
        "answer",
        [{"content": "<think>\nhm\n</think>\n\nI am Qwen."}, {"content": "I am Qwen.", "reasoning_content": "hm"}],
    )
    def test_reasoning_of_earlier_turns_is_dropped(self, qwen3: ChatTokenizer, answer: dict[str, str]) -> None:
        prompt = self.render(qwen3, [*HELLO, {"role": "assistant", **answer}, *HELLO])
        assert "<|im_start|>assistant\nI am Qwen.<|im_end|>" in prompt
        assert "hm" not in prompt

    def test_reasoning_of_the_turn_in_progress_is_kept(self, qwen3: ChatTokenizer) -> None:
        messages = dialogue(json.dumps)
        messages[1]["reasoning"] = "look both up"
        assert "<think>\nlook both up\n</think>\n\n<tool_call>" in self.render(qwen3, messages, tools=[POSTCODE])

    def test_continuing_the_last_message(self, qwen3: ChatTokenizer) -> None:
        messages = [*HELLO, {"role": "assistant", "content": "我是"}]
        assert self.render(qwen3, messages, continue_final_message=True).endswith("\n我是")


def test_qwen2_5_has_no_reasoning(qwen3: ChatTokenizer) -> None:
    plain = with_template(qwen3, "{{ messages[0].content }}{% if tools %}<tool_call>{% endif %}")
    styler = find_styler(checkpoint("qwen2"))
    assert styler.answer_format(plain) == AnswerFormat(tool_parser="hermes")
    # QwQ and R1 distillations share the model type.
    assert styler.answer_format(qwen3) == AnswerFormat(THINK, False, True, "hermes")


class TestInternVL:
    styler = find_styler(checkpoint("internvl_chat"))

    def test_the_family_s_own_system_prompt(self) -> None:
        tokenizer = tiny("<|im_start|>", "<|im_end|>", template="{{ raise_exception('the language model\\'s') }}")
        assert self.styler.render(tokenizer, chat(HELLO)) == (
            f"<|im_start|>system\n{SYSTEM_PROMPT}<|im_end|>\n"
            "<|im_start|>user\n你好，你是谁？<|im_end|>\n<|im_start|>assistant\n"
        )
        assert self.styler.answer_format(tokenizer) == AnswerFormat()
        assert self.styler.stop_ids(tokenizer) == (tokenizer.token_id("<|im_end|>"),)

    def test_bos_where_the_tokenizer_writes_one(self) -> None:
        tokenizer = tiny("<|im_start|>", "<|im_end|>", bos="<s>")
        assert self.styler.render(tokenizer, chat(HELLO)).startswith("<s><|im_start|>system\n")

    def test_a_system_message_replaces_it(self) -> None:
        messages = [{"role": "system", "content": "S"}, *HELLO, {"role": "assistant", "content": "A"}]
        prompt = self.styler.render(tiny("<|im_end|>"), chat(messages, continue_final_message=True))
        assert prompt == (
            "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\n你好，你是谁？<|im_end|>\n<|im_start|>assistant\nA"
        )

    def test_tool_history_is_refused(self) -> None:
        with pytest.raises(RequestError, match="no format for tool calls"):
            self.styler.render(tiny(), chat(dialogue(json.dumps)))


class TestGemma3:
    styler = find_styler(checkpoint("gemma3"))

    def render(self, tokenizer: ChatTokenizer, messages: Any, **fields: Any) -> str:
        return self.styler.render(tokenizer, chat(messages, **fields))

    def test_token_count_of_the_published_dialogue(self, gemma3: ChatTokenizer) -> None:
        prompt = self.render(gemma3, HELLO)
        assert prompt == "<bos><start_of_turn>user\n你好，你是谁？<end_of_turn>\n<start_of_turn>model\n"
        ids = gemma3.encode(prompt, add_special_tokens=False)
        assert len(ids) == 14
        assert ids.count(2) == 1  # BOS

    def test_answers(self, gemma3: ChatTokenizer) -> None:
        assert self.styler.answer_format(gemma3) == AnswerFormat(tool_parser="gemma")
        assert self.styler.stop_ids(gemma3) == (106,)

    def test_system_text_opens_the_first_user_turn(self, gemma3: ChatTokenizer) -> None:
        messages = [{"role": "system", "content": "A"}, {"role": "developer", "content": "B"}, *HELLO]
        assert self.render(gemma3, messages).startswith(
            "<bos><start_of_turn>user\nA\n\nB\n\n你好，你是谁？<end_of_turn>\n"
        )

    @pytest.mark.parametrize(
        ("roles", "message"),
        [
            (["user", "user"], "roles must alternate"),
            (["assistant", "user"], "roles must alternate"),
            (["user", "system", "user"], r"messages\[1\].role may be system only at the start"),
            (["system"], "must have a user message"),
        ],
    )
    def test_turns_that_the_family_cannot_express(self, gemma3: ChatTokenizer, roles: list[str], message: str) -> None:
        with pytest.raises(RequestError, match=message) as error:
            self.render(gemma3, [{"role": role, "content": "x"} for role in roles])
        assert error.value.param == "messages"

    def test_tools_are_described_in_the_first_turn(self, gemma3: ChatTokenizer) -> None:
        messages = [{"role": "system", "content": "Be brief."}, *HELLO]
        prompt = self.render(gemma3, messages, tools=[WEATHER, POSTCODE])
        assert prompt.startswith("<bos><start_of_turn>user\nBe brief.\n\nYou have access to the functions below.")
        assert json.dumps([WEATHER["function"], POSTCODE["function"]], ensure_ascii=False) + "\n\n你好" in prompt
        assert "array" not in self.render(gemma3, messages, tools=[POSTCODE], parallel_tool_calls=False)

    def test_calls_and_results_are_turns_of_text(self, gemma3: ChatTokenizer) -> None:
        after = {"role": "user", "content": "Well?"}
        prompt = self.render(gemma3, [*dialogue(json.dumps), after])
        assert prompt.endswith(
            "<start_of_turn>model\n"
            '[{"name": "get_postcode", "parameters": {"location": "Boston"}}, '
            '{"name": "get_current_weather", "parameters": {"location": "Boston, MA", "unit": "fahrenheit"}}]'
            "<end_of_turn>\n<start_of_turn>user\n"
            "Result of get_postcode:\n02138\n\nResult of get_current_weather:\n59.0\n\nWell?<end_of_turn>\n"
            "<start_of_turn>model\n"
        )

    def test_one_call_is_one_object_after_its_text(self, gemma3: ChatTokenizer) -> None:
        answer = {"role": "assistant", "content": "Let me look.", "tool_calls": [call("c", "f", '{"城市": "北京"}')]}
        prompt = self.render(gemma3, [*HELLO, answer, {"role": "tool", "content": "晴", "name": "g"}])
        assert 'Let me look.\n\n{"name": "f", "parameters": {"城市": "北京"}}<end_of_turn>' in prompt
        assert "Result of g:\n晴<end_of_turn>" in prompt


def test_llama3() -> None:
    styler = find_styler(checkpoint("llama"), "llama3")
    tokenizer = tiny("<|eot_id|>", "<|eom_id|>", template="{{ messages[0].content }}{{ tools }}")
    assert styler.answer_format(tokenizer) == AnswerFormat(tool_parser="llama3_json")
    assert styler.stop_ids(tokenizer) == (tokenizer.token_id("<|eot_id|>"), tokenizer.token_id("<|eom_id|>"))
    assert styler.answer_format(tiny(template="{{ messages[0].content }}")).tool_parser is None


class TestDefault:
    styler = find_styler(checkpoint("mistral"))

    def test_chatml_where_there_is_no_template(self) -> None:
        tokenizer = tiny("<|im_start|>", "<|im_end|>")
        assert self.styler.render(tokenizer, chat(HELLO)) == (
            "<|im_start|>user\n你好，你是谁？<|im_end|>\n<|im_start|>assistant\n"
        )
        assert self.styler.stop_ids(tokenizer) == (tokenizer.token_id("<|im_end|>"),)
        assert self.styler.answer_format(tokenizer) == AnswerFormat()

    def test_neither_template_nor_chatml(self) -> None:
        assert self.styler.answer_format(tiny()) == AnswerFormat()
        with pytest.raises(RequestError, match="has no chat template"):
            self.styler.render(tiny(), chat(HELLO))

    @pytest.mark.parametrize(
        ("template", "parser"),
        [
            ("{{ tools }}<tool_call>", "hermes"),
            ("{{ tools }}<tool_call><function=", None),
            ("{{ tools }}<|start_header_id|>", "llama3_json"),
            ("{{ tools }}", None),
            ("<tool_call>", None),
        ],
    )
    def test_the_tool_parser_is_read_off_the_template(self, template: str, parser: str | None) -> None:
        assert self.styler.answer_format(tiny(template=template)).tool_parser == parser

    def test_reasoning_is_read_off_the_template(self) -> None:
        switch = "{% if enable_thinking %}<think>\n{% else %}<think>\n</think>\n{% endif %}"
        assert self.styler.answer_format(tiny(template=switch)) == AnswerFormat(THINK, True, False)
        always = "{# </think> #}<think>\n"
        styler = find_styler(checkpoint("mistral"), template_defaults={"enable_thinking": False})
        assert styler.answer_format(tiny(template=always)) == AnswerFormat(THINK, True, True)

    def test_a_token_ends_turns_only_where_the_template_writes_it(self) -> None:
        assert self.styler.stop_ids(tiny("<|im_end|>", template="x")) == ()
        tokenizer = tiny("<|im_end|>", "<end_of_turn>", template="x<end_of_turn>")
        assert self.styler.stop_ids(tokenizer) == (tokenizer.token_id("<end_of_turn>"),)
