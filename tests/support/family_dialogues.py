# SPDX-License-Identifier: Apache-2.0
"""Two rounds with a tool in formats of different shape: a small template of each, and what its model writes.

The templates are made up; the markers stand where the families' templates have them, and are special tokens.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

QUESTION = "How is the weather in Köln 🌦 in two days?"
RESULT = "59.0 °F"
TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the weather",
        "parameters": {
            "type": "object",
            "properties": {
                "location": {"type": "string"},
                "days": {"type": "integer"},
                "tags": {"type": "array", "items": {"type": "string"}},
            },
            "required": ["location"],
        },
    },
}
NAME = "get_weather"
# "123" is text and -2 is a number, which formats without quotes only know from the tool.
ARGUMENTS = {"location": "Köln 🌦, <b>\n123", "days": -2, "tags": ["a", "b]"]}
THOUGHT = "I need the weather: 1 < 2.\n\n好的。"
SECOND_THOUGHT = "It is 59."
ANSWER = "It is **59.0 °F** 🌤️.\n\nBring a jacket."


@dataclass(frozen=True, slots=True)
class FamilyDialogue:
    """One format.

    template: the chat template. special: tokens that the vocabulary gets. ends: tokens that end an answer.
    asked, answered: what the model writes in each round, without the end token. spelled: the call in the second
    round's prompt. call_id: the id that the model gives its call; None if the server gives one. thinks: whether the
    answers have reasoning. exact: the arguments are JSON, handed out as they are written.
    """

    name: str
    template: str
    special: tuple[str, ...]
    ends: tuple[str, ...]
    asked: str
    answered: str
    spelled: str
    call_id: str | None = None
    thinks: bool = True
    exact: bool = True


JSON_ARGUMENTS = json.dumps(ARGUMENTS, ensure_ascii=False)

QWEN3_CODER = FamilyDialogue(
    "qwen3_coder",
    """
{%- if tools -%}
<|im_start|>system
# Tools
{% for tool in tools %}{{ tool | tojson }}
{% endfor %}Call as <tool_call>
<function=name>
<parameter=key>
value
</parameter>
</function>
</tool_call><|im_end|>
{% endif -%}
{%- for message in messages -%}
<|im_start|>{{ "user" if message.role == "tool" else message.role }}
{% if message.reasoning_content %}<think>
{{ message.reasoning_content }}
</think>

{% endif -%}
{%- if message.role == "tool" %}<tool_response>
{{ message.content }}
</tool_response>{% else %}{{ message.content }}{% endif -%}
{%- for call in message.tool_calls or [] %}<tool_call>
<function={{ call.function.name }}>
{% for key, value in call.function.arguments | items %}<parameter={{ key }}>
{{ value if value is string else value | tojson }}
</parameter>
{% endfor %}</function>
</tool_call>{% endfor %}<|im_end|>
{% endfor -%}
{%- if add_generation_prompt %}<|im_start|>assistant
<think>
{% endif -%}
""",
    special=("<tool_call>", "</tool_call>", "<function=", "</function>", "<parameter=", "</parameter>"),
    ends=("<|im_end|>",),
    asked=f"{THOUGHT}\n</think>\n\n<tool_call>\n<function={NAME}>\n<parameter=location>\n{ARGUMENTS['location']}\n"
    '</parameter>\n<parameter=days>\n-2\n</parameter>\n<parameter=tags>\n["a", "b]"]\n</parameter>\n</function>\n'
    "</tool_call>",
    answered=f"{SECOND_THOUGHT}\n</think>\n\n{ANSWER}",
    spelled=f"<function={NAME}>\n<parameter=location>\n{ARGUMENTS['location']}\n</parameter>\n<parameter=days>\n-2\n",
    exact=False,
)

KIMI_K2 = FamilyDialogue(
    "kimi_k2",
    """
{%- if tools -%}<|im_system|>tool_declare<|im_middle|>{{ tools | tojson }}<|im_end|>{%- endif -%}
{%- for message in messages -%}
<|im_{{ "system" if message.role == "tool" else message.role }}|>{{ message.role }}<|im_middle|>
{%- if message.role == "tool" %}## Return of {{ message.tool_call_id }}
{% endif -%}
{%- if message.reasoning_content %}<think>{{ message.reasoning_content }}</think>{% endif -%}
{{ message.content }}
{%- if message.tool_calls %}<|tool_calls_section_begin|>
{%- for call in message.tool_calls -%}
<|tool_call_begin|>{{ call.id }}<|tool_call_argument_begin|>{{ call.function.arguments | tojson }}<|tool_call_end|>
{%- endfor %}<|tool_calls_section_end|>{% endif %}<|im_end|>
{%- endfor -%}
{%- if add_generation_prompt %}<|im_assistant|>assistant<|im_middle|>{% endif -%}
""",
    special=(
        "<|im_system|>",
        "<|im_user|>",
        "<|im_assistant|>",
        "<|im_middle|>",
        "<|tool_calls_section_begin|>",
        "<|tool_call_begin|>",
        "<|tool_call_argument_begin|>",
        "<|tool_call_end|>",
        "<|tool_calls_section_end|>",
    ),
    ends=("<|im_end|>",),
    asked=f"<think>{THOUGHT}</think><|tool_calls_section_begin|><|tool_call_begin|>functions.{NAME}:0"
    f"<|tool_call_argument_begin|>{JSON_ARGUMENTS}<|tool_call_end|><|tool_calls_section_end|>",
    answered=f"<think>{SECOND_THOUGHT}</think>{ANSWER}",
    spelled=f"<|tool_call_begin|>functions.{NAME}:0<|tool_call_argument_begin|>{JSON_ARGUMENTS}<|tool_call_end|>"
    f"<|tool_calls_section_end|><|im_end|><|im_system|>tool<|im_middle|>## Return of functions.{NAME}:0\n{RESULT}",
    call_id=f"functions.{NAME}:0",
)

OPENAI = FamilyDialogue(
    "openai",
    """
{%- if tools -%}<|start|>developer<|message|># Tools
{{ tools | tojson }}<|end|>{%- endif -%}
{%- set last = namespace(name="") -%}
{%- for message in messages -%}
{%- if message.role == "tool" -%}
<|start|>functions.{{ last.name }} to=assistant<|channel|>commentary<|message|>{{ message.content }}<|end|>
{%- elif message.role == "assistant" -%}
{%- if message.thinking %}<|start|>assistant<|channel|>analysis<|message|>{{ message.thinking }}<|end|>{% endif -%}
{%- if message.content %}<|start|>assistant<|channel|>final<|message|>{{ message.content }}<|end|>{% endif -%}
{%- for call in message.tool_calls or [] -%}
{%- set last.name = call.function.name -%}
<|start|>assistant to=functions.{{ last.name }}<|channel|>commentary <|constrain|>json<|message|>
{{- call.function.arguments | tojson }}<|call|>
{%- endfor -%}
{%- else -%}
<|start|>{{ message.role }}<|message|>{{ message.content }}<|end|>
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt %}<|start|>assistant{% endif -%}
""",
    special=("<|start|>", "<|channel|>", "<|message|>", "<|constrain|>", "<|end|>", "<|return|>", "<|call|>"),
    ends=("<|return|>", "<|call|>"),
    asked=f"<|channel|>analysis<|message|>{THOUGHT}<|end|><|start|>assistant<|channel|>commentary to=functions.{NAME} "
    f"<|constrain|>json<|message|>{JSON_ARGUMENTS}",
    answered=f"<|channel|>analysis<|message|>{SECOND_THOUGHT}<|end|><|start|>assistant<|channel|>final<|message|>"
    f"{ANSWER}",
    spelled=f"<|start|>assistant<|channel|>analysis<|message|>{THOUGHT}<|end|><|start|>assistant to=functions.{NAME}"
    f"<|channel|>commentary <|constrain|>json<|message|>{JSON_ARGUMENTS}<|call|>",
)

GEMMA4 = FamilyDialogue(
    "gemma4",
    """
{%- if tools -%}<|turn>system
{{ tools | tojson }}<turn|>
{% endif -%}
{%- for message in messages -%}
{%- if message.role == "tool" -%}
<|tool_response>response{value:<|"|>{{ message.content }}<|"|>}<tool_response|>
{%- else -%}
<|turn>{{ message.role }}
{% if message.reasoning_content %}<|channel>thought
{{ message.reasoning_content }}
<channel|>{% endif -%}
{%- for call in message.tool_calls or [] -%}
<|tool_call>call:{{ call.function.name }}{
{%- for key, value in call.function.arguments | items -%}
{{ key }}:{{ '<|"|>' + value + '<|"|>' if value is string else value | tojson }}{{ "" if loop.last else "," }}
{%- endfor -%} }<tool_call|>
{%- endfor -%}
{{ message.content }}{{ "" if message.tool_calls else "<turn|>\n" }}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt and messages[-1].role != "tool" %}<|turn>model
{% endif -%}
""",
    special=(
        "<|turn>",
        "<turn|>",
        "<|channel>",
        "<channel|>",
        "<|tool_call>",
        "<tool_call|>",
        "<|tool_response>",
        "<tool_response|>",
        '<|"|>',
    ),
    ends=("<turn|>", "<|tool_response>"),
    asked=f'<|channel>thought\n{THOUGHT}\n<channel|><|tool_call>call:{NAME}{{location:<|"|>{ARGUMENTS["location"]}'
    '<|"|>,days:-2,tags:[<|"|>a<|"|>,<|"|>b]<|"|>]}<tool_call|>',
    answered=f"<|channel>thought\n{SECOND_THOUGHT}\n<channel|>{ANSWER}",
    spelled=f'<|tool_call>call:{NAME}{{location:<|"|>{ARGUMENTS["location"]}<|"|>,days:-2,',
    exact=False,
)

MISTRAL = FamilyDialogue(
    "mistral_v11",
    """
{%- if tools -%}[AVAILABLE_TOOLS]{{ tools | tojson }}[/AVAILABLE_TOOLS]{%- endif -%}
{%- for message in messages -%}
{%- if message.role == "tool" -%}
{%- if message.tool_call_id | length != 9 %}{{ raise_exception("An id has nine letters.") }}{% endif -%}
[TOOL_RESULTS]{{ message.tool_call_id }}[TOOL_CONTENT]{{ message.content }}[/TOOL_RESULTS]
{%- elif message.role == "assistant" -%}
{{ message.content }}
{%- for call in message.tool_calls or [] -%}
{%- if call.id | length != 9 %}{{ raise_exception("An id has nine letters.") }}{% endif -%}
[TOOL_CALLS]{{ call.function.name }}[CALL_ID]{{ call.id }}[ARGS]{{ call.function.arguments | tojson }}
{%- endfor -%}
<|im_end|>
{%- else -%}
[INST]{{ message.content }}[/INST]
{%- endif -%}
{%- endfor -%}
""",
    special=(
        "[INST]",
        "[/INST]",
        "[AVAILABLE_TOOLS]",
        "[/AVAILABLE_TOOLS]",
        "[TOOL_CALLS]",
        "[CALL_ID]",
        "[ARGS]",
        "[TOOL_RESULTS]",
        "[TOOL_CONTENT]",
        "[/TOOL_RESULTS]",
    ),
    ends=("<|im_end|>",),
    asked=f"[TOOL_CALLS]{NAME}[CALL_ID]aB3dE6gH0[ARGS]{JSON_ARGUMENTS}",
    answered=ANSWER,
    spelled=f"[TOOL_CALLS]{NAME}[CALL_ID]aB3dE6gH0[ARGS]{JSON_ARGUMENTS}<|im_end|>"
    f"[TOOL_RESULTS]aB3dE6gH0[TOOL_CONTENT]{RESULT}[/TOOL_RESULTS]",
    call_id="aB3dE6gH0",
    thinks=False,
)

DIALOGUES = {dialogue.name: dialogue for dialogue in (QWEN3_CODER, KIMI_K2, OPENAI, GEMMA4, MISTRAL)}


def write_checkpoint(dialogue: FamilyDialogue, tokenizer_dir: Path, folder: Path) -> Path:
    """Write a checkpoint without weights: Qwen3's tokenizer with the family's tokens and template."""
    tokenizer = Tokenizer.from_file(str(tokenizer_dir / "tokenizer.json"))
    tokenizer.add_special_tokens(list(dialogue.special))
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = json.loads((tokenizer_dir / "tokenizer_config.json").read_text(encoding="utf-8"))
    # These settings override the tokens of the file before.
    settings["added_tokens_decoder"] |= {
        str(tokenizer.token_to_id(token)): {"content": token, "special": True} for token in dialogue.special
    }
    settings["chat_template"] = dialogue.template.lstrip("\n")
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    config: dict[str, Any] = {
        "model_type": "gpt2",  # of no styler
        "architectures": [],
        "vocab_size": 151936,
        "max_position_embeddings": 40960,
        "eos_token_id": [tokenizer.token_to_id(end) for end in dialogue.ends],
    }
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder
