# SPDX-License-Identifier: Apache-2.0
"""`triton-chat bench answers`: CPU time per token of reading an answer, for every format of tool calls.

Answers come token by token, as from an engine, and pass through detokenizer, stop strings and parser. Each is a long
text, long reasoning, one call with a long argument, or many calls; a long answer must cost per token what a short one
does.
"""

import argparse
import json
import shlex
import time
from collections.abc import Mapping, Sequence
from itertools import chain, repeat
from pathlib import Path
from statistics import median

from tokenizers import Tokenizer

from common.answer_options import AnswerOptions
from common.command_line import Parser
from common.finish_reason import FinishReason
from families.formats import RULES
from families.parsers import AnswerFormat
from scripts.bench import machine
from scripts.bench.options import positive

WORDS = "The weather in Köln is fine today, and 21 °C are expected. "
TEXT = "TEXT"
# Format -> text before the first call, between two, and after the last; and one call with a place for its argument.
CALLS: Mapping[str, tuple[str, str, str, str]] = {
    **{
        name: (f"{begin}[", ", ", f"]{end}", '{"name": "f", "arguments": {"a": "TEXT"}}')
        for name, begin, end in (
            ("apriel", "<tool_calls>", "</tool_calls>"),
            ("granite", "<|tool_call|>", ""),
            ("hunyuan_a13b", "<tool_calls>", "</tool_calls>"),
            ("mistral", "[TOOL_CALLS]", ""),
            ("nemotron_json", "<TOOLCALL>", "</TOOLCALL>"),
            ("phi4_mini_json", "<|tool_call|>", "<|/tool_call|>"),
        )
    },
    "cohere_command": (
        "<|START_ACTION|>[",
        ", ",
        "]<|END_ACTION|>",
        '{"tool_call_id": "0", "tool_name": "f", "parameters": {"a": "TEXT"}}',
    ),
    "deepseek_v3": (
        "<｜tool▁calls▁begin｜>",
        "\n",
        "<｜tool▁calls▁end｜>",
        '<｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json\n{"a": "TEXT"}\n```<｜tool▁call▁end｜>',
    ),
    "deepseek_v31": (
        "<｜tool▁calls▁begin｜>",
        "",
        "<｜tool▁calls▁end｜>",
        '<｜tool▁call▁begin｜>f<｜tool▁sep｜>{"a": "TEXT"}<｜tool▁call▁end｜>',
    ),
    **{
        name: (
            f"<｜DSML｜{section}>\n",
            "\n",
            f"\n</｜DSML｜{section}>",
            '<｜DSML｜invoke name="f">\n<｜DSML｜parameter name="a" string="true">TEXT</｜DSML｜parameter>\n'
            "</｜DSML｜invoke>",
        )
        for name, section in (("deepseek_v32", "function_calls"), ("deepseek_v4", "tool_calls"))
    },
    "functionary_v31": ("", "", "", '<function=f>{"a": "TEXT"}</function>'),
    "gemma": ("[", ", ", "]", 'f(a="TEXT")'),
    "gemma4": ("", "", "", '<|tool_call>call:f{a:<|"|>TEXT<|"|>}<tool_call|>'),
    "gigachat3": ("", "\n", "", '<|function_call|>{"name": "f", "arguments": {"a": "TEXT"}}'),
    "glm45": (
        "",
        "\n",
        "",
        "<tool_call>f\n<arg_key>a</arg_key>\n<arg_value>TEXT</arg_value>\n</tool_call>",
    ),
    "hermes": ("", "\n", "", '<tool_call>\n{"name": "f", "arguments": {"a": "TEXT"}}\n</tool_call>'),
    "hy3": (
        "<tool_calls:opensource>\n",
        "\n",
        "\n</tool_calls:opensource>",
        "<tool_call:opensource>f<tool_sep:opensource>\n<arg_key:opensource>a</arg_key:opensource>\n"
        "<arg_value:opensource>TEXT</arg_value:opensource>\n</tool_call:opensource>",
    ),
    "kimi_k2": (
        "<|tool_calls_section_begin|>",
        "",
        "<|tool_calls_section_end|>",
        '<|tool_call_begin|>functions.f:0<|tool_call_argument_begin|>{"a": "TEXT"}<|tool_call_end|>',
    ),
    "kimi_k3": (
        "<|open|>tools<|sep|>",
        "",
        "<|close|>tools<|sep|>",
        '<|open|>call tool="f" index="1"<|sep|><|open|>argument key="a" type="string"<|sep|>TEXT'
        "<|close|>argument<|sep|><|close|>call<|sep|>",
    ),
    "lfm2": ("<|tool_call_start|>[", ", ", "]<|tool_call_end|>", 'f(a="TEXT")'),
    "llama3_json": ("", "; ", "", '{"name": "f", "parameters": {"a": "TEXT"}}'),
    "minicpm5": ("", "", "", '<function name="f"><param name="a">TEXT</param></function>'),
    "minimax_m1": ("<tool_calls>\n", "\n", "\n</tool_calls>", '{"name": "f", "arguments": {"a": "TEXT"}}'),
    "minimax_m2": (
        "<minimax:tool_call>\n",
        "\n",
        "\n</minimax:tool_call>",
        '<invoke name="f">\n<parameter name="a">TEXT</parameter>\n</invoke>',
    ),
    "minimax_m3": (
        "]<]minimax[>[<tool_call>\n",
        "\n",
        "\n]<]minimax[>[</tool_call>",
        ']<]minimax[>[<invoke name="f">]<]minimax[>[<a>TEXT]<]minimax[>[</a>]<]minimax[>[</invoke>',
    ),
    "mistral_v11": ("", "", "", '[TOOL_CALLS]f[CALL_ID]aB3dE6gH0[ARGS]{"a": "TEXT"}'),
    "mistral_v13": ("", "", "", '[TOOL_CALLS]f[ARGS]{"a": "TEXT"}'),
    "olmo3": ("<function_calls>", "\n", "</function_calls>", 'f(a="TEXT")'),
    "openai": (
        "",
        "<|start|>assistant",
        "",
        '<|channel|>commentary to=functions.f <|constrain|>json<|message|>{"a": "TEXT"}<|call|>',
    ),
    "pythonic": ("[", ", ", "]", 'f(a="TEXT")'),
    **{
        name: (
            "",
            "\n",
            "",
            f"<{tag}>\n<function=f>\n<parameter=a>\nTEXT\n</parameter>\n</function>\n</{tag}>",
        )
        for name, tag in (("qwen3_coder", "tool_call"), ("seed_oss", "seed:tool_call"))
    },
    "solar": (
        "<|tool_calls|>",
        "",
        "",
        '<|tool_call:begin|>id<|tool_call:name|>f<|tool_call:args|>{"a": "TEXT"}<|tool_call:end|>',
    ),
}
SHAPES = ("text", "reasoning", "argument", "calls")
OPTIONS = AnswerOptions(chat=True, tools=True, text_arguments='{"f":["a"]}', skip_special_tokens=False)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the command line."""
    parser = Parser(
        prog="triton-chat bench answers", description=(__doc__ or "").partition("\n\n")[2], allow_abbrev=False
    )
    add = parser.add_argument
    add("--tokenizer", type=Path, default=Path(".cache/tokenizers/qwen3"), help="a folder (default: %(default)s)")
    add("--formats", nargs="+", choices=sorted(CALLS), default=sorted(CALLS), help="default: all")
    add("--lengths", nargs=2, type=positive, default=[100, 32_000], help="tokens of an answer (default: 100 32000)")
    add("--rounds", type=positive, default=3, help="medians are over these (default: 3)")
    add("--out", type=Path, default=Path(".cache/bench-answers"), help="default: %(default)s")
    options = parser.parse_args(arguments)
    options.line = shlex.join(["triton-chat", "bench", "answers", *arguments])
    return options


def measure(options: argparse.Namespace) -> int:
    """Measure, print and save."""
    # Only when it runs: it imports transformers.
    from common.tokenizer import ChatTokenizer

    tokenizer = ChatTokenizer.load(options.tokenizer).backend
    result = {
        name: {shape: costs(tokenizer, name, shape, options.lengths, options.rounds) for shape in SHAPES}
        for name in options.formats
    }
    about = {"command": options.line, "machine": machine.hardware(), "versions": machine.versions(None)}
    text = table(result)
    options.out.mkdir(parents=True, exist_ok=True)
    saved = {"about": about, "lengths": options.lengths, "microseconds": result}
    (options.out / "answers.json").write_text(json.dumps(saved, indent=1), encoding="utf-8")
    (options.out / "answers.md").write_text(text + "\n", encoding="utf-8")
    print(f"us per token of answers of {options.lengths[0]} and {options.lengths[1]} tokens\n\n{text}")
    print(f"\nsaved in {options.out}")
    return 0


def answer_format(name: str) -> AnswerFormat:
    """A format of calls with the reasoning of the first family that has both."""
    reasoning = next((rule.reasoning for rule in RULES if rule.tools == name and rule.reasoning), "think")
    return AnswerFormat(reasoning, tool_parser=name)


def answer(name: str, shape: str, repeats: int) -> str:
    """An answer whose long part is repeated."""
    begin, between, end, call = CALLS[name]
    reasoning = answer_format(name).reasoning_format
    if shape == "text" or reasoning is None:
        return WORDS * repeats
    if shape == "reasoning":
        return f"{reasoning.open}{WORDS * repeats}{reasoning.close}"
    if shape == "argument":
        return begin + call.replace(TEXT, WORDS * repeats) + end
    return begin + between.join(repeat(call.replace(TEXT, WORDS), repeats)) + end


def answer_ids(tokenizer: Tokenizer, name: str, shape: str, tokens: int) -> list[int]:
    """The ids of an answer of about so many tokens."""
    short, long = (len(tokenizer.encode(answer(name, shape, count), add_special_tokens=False)) for count in (1, 11))
    repeats = 1 + max(0, tokens - short) * 10 // (long - short)
    ids: list[int] = tokenizer.encode(answer(name, shape, repeats), add_special_tokens=False).ids
    return ids


def costs(tokenizer: Tokenizer, name: str, shape: str, lengths: Sequence[int], rounds: int) -> list[float]:
    """Microseconds of CPU time per token at each length. The answers of a length have about as many tokens in all."""
    answers = [answer_ids(tokenizer, name, shape, length) for length in lengths]
    counts = [max(1, max(lengths) // len(ids)) for ids in answers]
    measured = [
        [cost(tokenizer, name, ids, count) for ids, count in zip(answers, counts, strict=True)] for _ in range(rounds)
    ]
    return [median(each[at] for each in measured) for at in range(len(lengths))]


def cost(tokenizer: Tokenizer, name: str, ids: Sequence[int], count: int) -> float:
    """Microseconds of CPU time per token of an answer that is read so many times."""
    from postprocessing.answer_stream import AnswerStream

    form = answer_format(name)
    begun = time.process_time()
    for _ in range(count):
        stream = AnswerStream(tokenizer, form, OPTIONS, frozenset())
        for token_id in ids:
            stream.feed([token_id])
        stream.feed([], engine_finish=FinishReason.END_ID)
    return (time.process_time() - begun) * 1e6 / (count * len(ids))


def table(result: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
    """Markdown table of both costs of each shape, and the greatest ratio of the second to the first."""
    head = ["format", *SHAPES, "greatest ratio"]
    lines = [f"| {' | '.join(head)} |", "|---|" + "---:|" * (len(head) - 1)]
    for name, shapes in result.items():
        cells = [f"{short:.1f} / {long:.1f}" for short, long in shapes.values()]
        worst = max(long / short for short, long in shapes.values())
        lines.append(f"| {name} | {' | '.join(chain(cells, [f'**{worst:.2f}**']))} |")
    return "\n".join(lines)
