# SPDX-License-Identifier: Apache-2.0
"""A request's wish for reasoning, in the variables of small templates and of published ones."""

from typing import Any

import pytest

from common.chat.reasoning import EFFORTS
from common.errors import RequestError
from common.tokenizer import ChatTokenizer
from families.detection import find_styler
from families.parsers import AnswerFormat
from families.reasoning_switches import SWITCHES, template_switches
from families.stylers.default import DefaultStyler
from tests.support.answers import THINK
from tests.support.chats import chat, checkpoint, tiny
from tests.support.templates import published

USER = [{"role": "user", "content": "Why?"}]
EXPECTED_EFFORTS = "none minimal low medium high xhigh max"
# An effort is the only switch, as in Hy3.
STRICT = """{% if effort is not defined and reasoning_effort not in ['off', 'no_think', 'low', 'high'] %}
{{ raise_exception('bad effort') }}{% endif %}<think>{{ '</think>' if reasoning_effort == 'no_think' }}"""
WORDS = """{% set ns = namespace(on=true) %}{% for m in messages %}{% if '/think' in m.content %}{% set ns.on = true %}
{% elif '/no_think' in m.content %}{% set ns.on = false %}{% endif %}{{ m.role }}={{ m.content }};{% endfor %}
{{ '<think>' if ns.on else '<think></think>' }}"""


@pytest.fixture(scope="module")
def bare(qwen3_tokenizer_dir: Any) -> ChatTokenizer:
    """A tokenizer with a BOS token, which some published templates read."""
    tokenizer = ChatTokenizer.load(qwen3_tokenizer_dir)
    tokenizer._tokenizer.bos_token = "<|endoftext|>"
    return tokenizer


@pytest.mark.parametrize("name", SWITCHES)
@pytest.mark.parametrize("thinking", [True, False])
def test_a_template_gets_the_switch_that_it_reads(name: str, thinking: bool) -> None:
    source = "{% if " + name + " is defined %}{{ " + name + " }}{% endif %}"
    assert template_switches(tiny(), source, thinking, None) == {name: SWITCHES[name][not thinking]}
    assert template_switches(tiny(), source, None, None) == {}


def test_only_variables_count() -> None:
    """Neither a text, nor a field of that name, nor a variable that the template sets itself is a switch."""
    source = """enable_thinking {% set add_thoughts = true %}{% set ns = namespace(thinking=true) %}
    {{ ns.thinking }}{{ messages[0].reasoning }}{{ 'thinking_mode' }}{{ add_thoughts }}"""
    assert template_switches(tiny(), source, True, "high") == {}


def test_a_broken_template_has_no_switches() -> None:
    assert template_switches(tiny(), "{% if enable_thinking %}", True, "high") == {}


@pytest.mark.parametrize(
    ("source", "values"),
    [
        # Only written: the efforts that such models were trained with.
        ("Reasoning: {{ reasoning_effort }}", "low low low medium high high high"),
        ("{{ reasoning_effort }}{{ enable_thinking }}", "- low low medium high high high"),
        # One that is compared is taken as it is, unless the template refuses it.
        ("{{ 'x' if reasoning_effort == 'max' }}{{ enable_thinking }}", "- minimal low medium high xhigh max"),
        ("{{ 'x' if reasoning_effort | lower == 'none' }}", EXPECTED_EFFORTS),
        ("{{ 'x' if reasoning_effort in ['low', 'minimal'] }}", EXPECTED_EFFORTS.replace("none", "minimal")),
        (STRICT, "no_think low low high high high high"),
    ],
)
def test_efforts(source: str, values: str) -> None:
    for effort, value in zip(EFFORTS, values.split(), strict=True):
        switches = template_switches(tiny(), source, effort != "none", effort)
        assert switches.get("reasoning_effort", "-") == value, effort


def test_an_effort_that_is_the_only_switch() -> None:
    assert template_switches(tiny(), STRICT, True, None) == {"reasoning_effort": "high"}
    assert template_switches(tiny(), STRICT, False, "high") == {"reasoning_effort": "no_think"}
    assert template_switches(tiny(), STRICT, None, None) == {}


def render(source: str, messages: Any = USER, **fields: Any) -> str:
    return DefaultStyler().render(tiny(template=source), chat(messages, **fields))


def test_words_in_the_messages() -> None:
    assert "user=Why? /no_think;" in render(WORDS, enable_thinking=False)
    assert render(WORDS, reasoning_effort="none").endswith("<think></think>")
    assert "user=Why?;" in render(WORDS)
    # Earlier words do not count.
    earlier = [{"role": "system", "content": "/think"}, *USER]
    assert render(WORDS, earlier, enable_thinking=False).endswith("<think></think>")
    assert render(WORDS, [{"role": "user", "content": "Why? /no_think"}]).endswith("<think></think>")


def test_the_client_s_own_variable_wins() -> None:
    source = "{{ thinking_mode }}"
    assert render(source, enable_thinking=False) == "disabled"
    assert render(source, enable_thinking=False, chat_template_kwargs={"thinking_mode": "adaptive"}) == "adaptive"
    assert render("{{ reasoning_effort }}", chat_template_kwargs={"reasoning_effort": "max"}) == "max"


def test_the_server_s_default_reaches_the_switch() -> None:
    source, tokenizer = "{{ thinking_mode }}", tiny(template="{{ thinking_mode }}")
    styler = find_styler(checkpoint("mistral"), template_defaults={"enable_thinking": False})
    assert styler.render(tokenizer, chat(USER)) == "disabled"
    assert styler.render(tokenizer, chat(USER, enable_thinking=True)) == "enabled"
    assert render(source) == ""


def test_an_effort_of_none_for_a_model_that_always_thinks() -> None:
    with pytest.raises(RequestError, match="reasoning_effort cannot be none") as error:
        render("{# </think> #}<think>", reasoning_effort="none")
    assert error.value.param == "reasoning_effort"


@pytest.mark.parametrize(
    ("source", "opens", "default"),
    [
        ("{{ '<think>' if thinking else '</think>' }}", True, False),
        ("{{ '<think>' if thinking is undefined or thinking else '</think>' }}", True, True),
        # Off writes nothing.
        ("{{ '<think>' if thinking }}{# </think> #}", True, False),
        # The third way: the model decides.
        ("{{ {'enabled': '<think>', 'disabled': '</think>'}[thinking_mode] or 'x' }}", True, True),
        (STRICT.replace("effort is not defined", "reasoning_effort is defined"), True, True),
    ],
)
def test_the_answer_s_form_follows_the_switch(source: str, opens: bool, default: bool) -> None:
    answer_format = DefaultStyler().answer_format(tiny(template=source))
    assert answer_format == AnswerFormat(THINK, opens, default, "hermes")


# Template -> the end of the prompt by default, with reasoning, and without.
ENDS = {
    "Bielik-11B-v3.0-Instruct": ("assistant", "<think>", "assistant"),
    "ByteDance-Seed-OSS": ("assistant", "assistant", "</seed:think>"),
    "Cohere2MoE": ("<|START_THINKING|>", "<|START_THINKING|>", "<|END_THINKING|>"),
    "CohereForAI-c4ai-command-r7b-12-2024-tool_use": ("<|END_THINKING|>", "<|CHATBOT_TOKEN|>", "<|END_THINKING|>"),
    "GLM-4.6": ("<|assistant|>", "<|assistant|>", "<think></think>"),
    "GLM-4.7-Flash": ("<think>", "<think>", "</think>"),
    "HuggingFaceTB-SmolLM3-3B": ("assistant", "assistant", "</think>"),
    "Kimi-K3": ("<|open|>think<|sep|>", "<|open|>think<|sep|>", "<|open|>response<|sep|>"),
    "MiniMax-M3": ("]~b]ai", "<mm:think>", "</mm:think>"),
    "NVIDIA-Nemotron-3-Nano-30B-A3B-BF16": ("<think>", "<think>", "<think></think>"),
    "NVIDIA-Nemotron-Nano-v2": ("<think>", "<think>", "<think></think>"),
    "Qwen-Qwen3-0.6B": ("assistant", "assistant", "</think>"),
    "Qwen3.5-4B": ("<think>", "<think>", "</think>"),
    "Reka-Edge": ("assistant:", "<think>", "assistant:"),
    "Spark2.5": ("<think>", "<think>", "</think>"),
    "deepseek-ai-DeepSeek-V3.1": ("</think>", "<think>", "</think>"),
    "deepseek-ai-DeepSeek-V3.2": ("</think>", "<think>", "</think>"),
    "deepseek-ai-DeepSeek-V4": ("</think>", "<think>", "</think>"),
    "google-gemma-4-31B-it": ("<channel|>", "<|turn>model", "<channel|>"),
    "inclusionai-ling-3.0-flash": ("<think>", "<think>", "<think></think>"),
    "openbmb-MiniCPM5-1B": ("assistant", "<think>", "</think>"),
    "poolside-Laguna-S-2.1": ("<think>", "<think>", "</think>"),
    "poolside-Laguna-XS-2.1": ("</think>", "<think>", "</think>"),
    "tencent-Hy3": ("</think:opensource>", "<think:opensource>", "</think:opensource>"),
    "upstage-Solar-Open-100B": ("assistant", "assistant", "<|think|><|end|><|begin|>assistant"),
}


@pytest.mark.parametrize("name", ENDS)
def test_published_templates(bare: ChatTokenizer, name: str) -> None:
    bare.template, styler = published(name), DefaultStyler()
    wishes = ({}, {"enable_thinking": True}, {"reasoning_effort": "none"})
    for fields, end in zip(wishes, ENDS[name], strict=True):
        assert styler.render(bare, chat(USER, **fields)).rstrip().endswith(end), fields


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("openai-gpt-oss-120b", "Reasoning: {}\n"),
        ("muse-glimmer", "Reasoning strength: {}."),
        ("Kimi-K3", "`thinking_effort={}`"),
        ("tencent-Hy3", "reasoning_effort:{}"),
    ],
)
def test_published_efforts(bare: ChatTokenizer, name: str, written: str) -> None:
    words = {
        "Kimi-K3": "- low low high high max max",
        "tencent-Hy3": "no_think low low high high high high",
    }.get(name, "low low low medium high high high")
    bare.template = published(name)
    for effort, word in zip(EFFORTS, words.split(), strict=True):
        prompt = DefaultStyler().render(bare, chat(USER, reasoning_effort=effort))
        assert (written.format(word) in prompt) is (word != "-"), effort
