# SPDX-License-Identifier: Apache-2.0
"""The scripted engine's answers to the prompts of tests/agents; the first rule whose `contains` is in the prompt counts.

LangChain's prompts are those of langchain_tests.integration_tests.chat_models. The scripted engine has no guided
decoding, so the prompt must decide the form of the answer. `tool_choice` and `response_format` are not in a prompt; if
the suite sends one prompt with several of them, the rule's answer is valid for all.
"""

import json
from typing import Any

Rule = dict[str, Any]


def call(name: str, **arguments: Any) -> str:
    """A tool call as Qwen3 writes it."""
    body = json.dumps({"name": name, "arguments": arguments}, ensure_ascii=False)
    return f"<tool_call>\n{body}\n</tool_call>"


def asked(question: str, text: str) -> Rule:
    """A rule that answers if the last user message ends with `question`."""
    return {"contains": f"{question}<|im_end|>\n<|im_start|>assistant\n", "text": text, "sizes": [1, 3, 2]}


def seen(part: str, text: str) -> Rule:
    """A rule that answers if `part` is anywhere in the prompt."""
    return {"contains": part, "text": text, "sizes": [1, 3, 2]}


_JOKE = json.dumps({"setup": "Why do cats sit on keyboards?", "punchline": "To watch the mouse."})
_ARGUMENTS = json.loads(_JOKE)

LANGCHAIN: list[Rule] = [
    # Tool results first, as those prompts also contain the question.
    seen("<tool_response>\nIt's sunny.", "It is sunny in San Francisco."),
    asked("What is 3 + 4", call("my_adder_tool", a=3, b=4)),
    seen('<tool_response>\n{"result": 3}', "1 + 2 = 3"),
    seen("<tool_response>\nError: Missing required argument", call("my_adder_tool", a=1, b=2)),
    asked("magic_function(3)? Use the tool.", call("magic_function", input=3)),
    asked("magic_function_no_args()? Use the tool.", call("magic_function_no_args")),
    asked("generate a Pirate greeting.", call("greeting_generator", answer_style="Pirate")),
    # Sent with tool_choice "required" and then with this function's name.
    asked("Hello!", call("magic_function", input=1)),
    asked("in San Francisco, CA?", f"<think>\nI should look.\n</think>\n\n{call('get_weather', location='SF')}"),
    asked("a Chinese technology company", call("unicode_customer", customer_name="你好啊集团", description="科技")),
    asked("a Japanese company", call("unicode_customer", customer_name="こんにちは株式会社", description="会社")),
    # LangChain turns a class of pydantic 1 into a tool named after it.
    seen('"name": "Joke"', call("Joke", **_ARGUMENTS)),
    asked("Tell me a joke about cats.", _JOKE),
    asked("Return nothing other than JSON.", _JOKE),
    asked("no punchline.", json.dumps({"setup": "Why do cats sit on keyboards?", "punchline": None})),
    asked("include the punchline.", _JOKE),
    asked("Only include the haikus.", "An old silent pond\nA frog jumps into the pond\nSplash! Silence again."),
    asked("how many legs has a spider?", "<think>\nArachnids have eight.\n</think>\n\nEight."),
    *[asked(greeting, "Hi! How are you?") for greeting in ("Hello", "hello", "Hey", "hi")],
    asked("how are you", "Fine, thank you."),
]

LLAMAINDEX: list[Rule] = [
    seen("Observation: It is 59.0 celsius", "Thought: I can answer.\nAnswer: 59.0 °C, which would be a record."),
    seen("<tool_response>\nIt is 59.0 fahrenheit in Boston, MA.", "It is 59.0 °F in Boston, MA. 🌤️"),
    seen("<tool_response>\nIt is 59.0 celsius in Rome.", "The same in both."),
    asked(
        "What's the weather like in Boston today?",
        f"<think>\nI need the tool.\n</think>\n\n{call('get_weather', location='Boston, MA', unit='fahrenheit')}",
    ),
    asked(
        "Compare the weather of Oslo and Rome.",
        "\n".join(call("get_weather", location=city, unit="celsius") for city in ("Oslo", "Rome")),
    ),
    asked(
        "How warm is it in Paris?",
        "Thought: I need a tool.\nAction: get_weather\n" + 'Action Input: {"location": "Paris", "unit": "celsius"}',
    ),
    asked("Who are you?", "我是通义千问。"),
    asked("Read the report: Boston has 59.0", call("Report", location="Boston", temperature=59.0)),
]

CLIENTS: list[Rule] = [
    *LLAMAINDEX,
    asked("Return the report: Boston has 59.0", call("final_result", location="Boston", temperature=59.0)),
    seen("Write it as JSON: Boston has 59.0", json.dumps({"location": "Boston", "temperature": 59.0})),
]
