# SPDX-License-Identifier: Apache-2.0
"""What a start says of how a model is read, and what it warns of."""

import json
from typing import Any

from common.tokenizer import ChatTokenizer
from families.detection import find_styler
from families.recognition import Recognition, recognise
from tests.support.chats import checkpoint, tiny
from tests.support.templates import NAMES, published


def recognised(
    template: str | None,
    *special: str,
    model_type: str = "other",
    tools: str | None = None,
    reasoning: str | None = None,
) -> Recognition:
    styler = find_styler(checkpoint(model_type), tool_parser=tools, reasoning_parser=reasoning)
    tokenizer = tiny(*special, template=template)
    return recognise(styler, tokenizer, styler.answer_format(tokenizer))


def test_the_template_decides() -> None:
    found = recognised("<|im_start|> You are Qwen <tool_call> {{ tools }} </think>")
    assert found.family == "qwen2.5, by the chat template; styler default, by config.json"
    assert found.reasoning == "think, by the chat template"
    assert found.tools == "hermes, by the chat template"
    assert not found.warnings


def test_the_default_model() -> None:
    found = recognised(
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>"
    )
    assert found.family == "smollm2, by the chat template; styler default, by config.json"
    assert found.reasoning == "none, by the chat template"


def test_the_family_decides() -> None:
    found = recognised("{{ messages[0].role }}", model_type="gemma3")
    assert found.family == "unknown to the rules; styler gemma3, by config.json"
    assert found.tools == "gemma, by the styler gemma3"
    found = recognised(None, model_type="deepseek_v32")
    assert (found.reasoning, found.tools) == (
        "think, by the styler deepseek_v32",
        "deepseek_v32, by the styler deepseek_v32",
    )


def test_the_operator_decides() -> None:
    template = "{{ tools }} enable_thinking"
    found = recognised(template, tools="glm47", reasoning="qwen3")
    assert (found.reasoning, found.tools) == ("think, by --reasoning-parser", "glm45, by --tool-call-parser")
    assert not found.warnings
    tokenizer = tiny(template=template)
    styler = find_styler(checkpoint("other"), "llama3")
    family = recognise(styler, tokenizer, styler.answer_format(tokenizer), styler_given=True).family
    assert family == "unknown to the rules; styler llama3, by --styler"


def test_the_tokenizer_decides() -> None:
    calls: dict[str, Any] = {"open": "[TOOL_CALLS]", "repeats": True, "content": "json", "transform_each": True}
    calls["transform"] = {"type": "function", "function": {"name": "{name}", "arguments": "{arguments}"}}
    described = {"start_anchor": "<|assistant|>", "fields": {"tool_calls": calls, "content": {}}}
    tokenizer = tiny(template="{{ tools }} <tool_call>")
    styler = find_styler(checkpoint("other"))

    def found() -> Recognition:
        tokenizer.response_template = json.dumps(described)
        return recognise(styler, tokenizer, styler.answer_format(tokenizer))

    assert found().tools == "mistral, by the tokenizer's response_template"
    assert not found().warnings
    calls["open"] = "[CALLS_OF_ANOTHER_KIND]"
    assert found().tools == "hermes, by the chat template"
    (warning,) = found().warnings
    assert "response_template" in warning


def test_no_template_and_no_tools_need_no_warning() -> None:
    for template in (None, "{{ messages }} I think it is for a reason"):
        found = recognised(template)
        assert not found.warnings
        assert found.tools == "hermes, because the chat template knows no tools"


def test_what_is_not_known_is_a_warning() -> None:
    (tools,) = recognised("{{ tools }}").warnings
    assert "--tool-call-parser" in tools
    for marker in ("enable_thinking", "reasoning_content", "<think>", "[/THINK]"):
        (reasoning,) = recognised("{{ messages }} " + marker).warnings
        assert "--reasoning-parser" in reasoning


def test_warnings_of_published_templates() -> None:
    """Only of those whose forms of calls or reasoning no parser reads."""
    warned = {}
    for name in NAMES:
        tokenizer: ChatTokenizer = tiny(template=published(name))
        styler = find_styler(checkpoint("other"))
        warnings = recognise(styler, tokenizer, styler.answer_format(tokenizer)).warnings
        options = [option for option in ("--tool-call-parser", "--reasoning-parser") if option in " ".join(warnings)]
        if options:
            warned[name] = options
    assert warned == (
        {
            "Apertus-8B-Instruct": ["--tool-call-parser", "--reasoning-parser"],
            "CohereForAI-c4ai-command-r-plus-tool_use": ["--tool-call-parser"],
            "meetkai-functionary-medium-v3.2": ["--tool-call-parser"],
            "muse-glimmer": ["--tool-call-parser", "--reasoning-parser"],
        }
        if NAMES
        else {}
    )
