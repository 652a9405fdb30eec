# SPDX-License-Identifier: Apache-2.0
"""Which family a checkpoint belongs to: the prompt formatters by configuration, the answer formats by chat template."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from common.checkpoint import Checkpoint, vision_config
from families.parsers.formats import AUTO, resolve_reasoning_format, resolve_tool_format
from families.stylers.base import Styler
from families.stylers.deepseek_v4 import DeepSeekV4PreviewStyler, DeepSeekV4Styler
from families.stylers.deepseek_v32 import DeepSeekV32Styler
from families.stylers.default import DefaultStyler
from families.stylers.gemma3 import Gemma3Styler
from families.stylers.internvl2_5 import InternVLStyler
from families.stylers.llama3 import HEADER, Llama3Styler
from families.stylers.qwen import QwenStyler
from families.stylers.qwen3 import Qwen3Styler

_TOKENIZER_FILES = ("tokenizer_config.json", "chat_template.jinja", "tokenizer.json", "encoding/encoding_dsv4.py")


@dataclass(frozen=True, slots=True)
class Family:
    """One family: its styler, and the values in `config.json` that its checkpoints are recognised by.

    model_types: values of `model_type`. architectures: values in `architectures`, which are compared first.
    header: text that the tokenizer's or encoder's files must also contain, for a `model_type` that several families
        share.
    """

    styler: type[Styler]
    model_types: tuple[str, ...] = ()
    architectures: tuple[str, ...] = ()
    header: str | None = None


DEFAULT = "default"

FAMILIES: Mapping[str, Family] = {
    "qwen": Family(QwenStyler, model_types=("qwen2", "qwen2_moe")),
    "qwen3": Family(Qwen3Styler, model_types=("qwen3", "qwen3_moe")),
    "internvl2_5": Family(
        InternVLStyler, model_types=("internvl_chat", "internvl"), architectures=("InternVLChatModel",)
    ),
    "gemma3": Family(Gemma3Styler, model_types=("gemma3", "gemma3_text")),
    "deepseek_v32": Family(DeepSeekV32Styler, model_types=("deepseek_v32",)),
    # The later checkpoints' encoder has another name for this: REASONING_EFFORT_PROMPTS.
    "deepseek_v4_preview": Family(DeepSeekV4PreviewStyler, model_types=("deepseek_v4",), header="REASONING_EFFORT_MAX"),
    "deepseek_v4": Family(DeepSeekV4Styler, model_types=("deepseek_v4",)),
    # Llama 2 and SmolLM have the same model type.
    "llama3": Family(Llama3Styler, model_types=("llama",), header=HEADER),
    DEFAULT: Family(DefaultStyler),
}


def find_styler(
    checkpoint: Checkpoint,
    name: str | None = None,
    template_defaults: Mapping[str, Any] | None = None,
    *,
    describe_tools: bool = True,
    tool_parser: str | None = None,
    reasoning_parser: str | None = None,
) -> Styler:
    """The styler called `name`, or without a name that of the checkpoint's family.

    template_defaults: the server's own `chat_template_kwargs`, such as `{"enable_thinking": False}`.
    describe_tools: describe tools in the prompt if the family has no form of its own for them.
    tool_parser, reasoning_parser: vLLM's names of the formats of answers, instead of the family's; "auto" is none.
    Raises ValueError for an unknown name, listing the known ones.
    """
    vision = vision_config(checkpoint.path)
    name = name or vision.get("family") or detect(checkpoint)
    if name not in FAMILIES:
        raise ValueError(f"unknown styler '{name}'; known: {', '.join(sorted(FAMILIES))}")
    if "system_prompt" in vision:
        template_defaults = {"default_system": vision["system_prompt"], **(template_defaults or {})}
    styler = FAMILIES[name].styler(template_defaults, describe_tools=describe_tools)
    if tool_parser not in (None, AUTO):
        styler.tool_format = resolve_tool_format(tool_parser)
    if reasoning_parser not in (None, AUTO):
        styler.reasoning_format = resolve_reasoning_format(reasoning_parser)
    return styler


class StylerOptions(Protocol):
    """The parameters of a Triton model that choose the styler."""

    def text(self, key: str) -> str | None:
        """A text, None if it is not given."""
        ...

    def given(self, *keys: str) -> dict[str, bool]:
        """The values of those switches that are given."""
        ...


def chosen_styler(checkpoint: Checkpoint, options: StylerOptions) -> Styler:
    """The styler that a model's parameters choose: `preprocessing` and `postprocessing` must have the same.

    Raises ValueError for an unknown name.
    """
    return find_styler(
        checkpoint,
        options.text("styler"),
        options.given("enable_thinking"),
        tool_parser=options.text("tool_call_parser"),
        reasoning_parser=options.text("reasoning_parser"),
        **options.given("describe_tools"),
    )


def detect(checkpoint: Checkpoint) -> str:
    """The name of the checkpoint's family; "default" if none is recognised."""
    for name, family in FAMILIES.items():
        if not set(family.architectures).isdisjoint(checkpoint.architectures):
            return name
    for name, family in FAMILIES.items():
        if checkpoint.model_type in family.model_types and _has_header(checkpoint, family):
            return name
    return DEFAULT


def _has_header(checkpoint: Checkpoint, family: Family) -> bool:
    if family.header is None:
        return True
    files = (checkpoint.path / name for name in _TOKENIZER_FILES)
    return any(family.header in file.read_text(encoding="utf-8") for file in files if file.is_file())
