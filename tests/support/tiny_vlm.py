# SPDX-License-Identifier: Apache-2.0
"""What describes a tiny random checkpoint of a vision-language family, and short chat templates."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformers import PretrainedConfig

TokenIds = Callable[[str], int]
CLIP = {"image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711]}
HALF = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
PREPROCESSOR, VIDEO, PROCESSOR = "preprocessor_config.json", "video_preprocessor_config.json", "processor_config.json"


@dataclass(frozen=True)
class TinyVlm:
    """A family.

    model: name of transformers' class. config: its configuration, from the ids of tokens and keywords of the language
    part. tokens: special tokens. named: those that are attributes of the tokenizer. files: of the processor. sharpen: make
    attention pick single tokens, where answers of random weights do not depend on pictures otherwise. published: a part
    of tensors' names as transformers writes it, and as published checkpoints have it. transposed: a part of the names of
    tensors that transformers writes the other way round than published checkpoints have them. text: what published checkpoints
    have in the configuration of the language part and transformers does not write. seed: of weights that answer
    different pictures differently, and never by a hair. bfloat16: vLLM's linear attention on CPUs takes nothing else.
    unanswered: dialogues of vlm_dialogues.py that transformers' model cannot have.
    publish: writes the published layout into the second folder from transformers' in the first, if it is another one.
    architecture: in the published configuration, if it is not the name of transformers' class. code: whether the checkpoint
    brings code, which needs --trust-remote-code. answers: whether weights are made, and so answers compared.
    vocabulary: tokens whose ids are fixed. numbered: the placeholder of a picture in transformers' template, and what vLLM
    replaces instead.
    """

    model: str
    config: Callable[[TokenIds, dict[str, Any]], PretrainedConfig]
    tokens: tuple[str, ...]
    files: Mapping[str, Mapping[str, Any]]
    template: str
    video: bool = False
    named: Mapping[str, str] = field(default_factory=dict)
    sharpen: float = 0.0
    seed: int = 7
    bfloat16: bool = False
    unanswered: tuple[str, ...] = ()
    published: tuple[str, str] = ("", "")
    transposed: str = ""
    text: Mapping[str, Any] = field(default_factory=dict)
    publish: Callable[[Path, Path], None] | None = None
    architecture: str = ""
    code: bool = False
    answers: bool = True
    vocabulary: Mapping[str, int] = field(default_factory=dict)
    numbered: tuple[str, str] = ("", "")

    @property
    def served(self) -> str:
        """The architecture in the configuration of what is served."""
        return self.architecture or self.model

    @property
    def engine_options(self) -> dict[str, Any]:
        """What the engine and `preprocessing` need for it, besides the type."""
        return {"trust_remote_code": True} if self.code else {}


def parts_template(turn: str, close: str, prompt: str, image: str, video: str = "", first: bool = False) -> str:
    """A template that reads content in parts. turn: before a message; prompt: before the answer; first: pictures first."""
    media = "{% if p.type == 'image' %}" + image + ("{% elif p.type == 'video' %}" + video if video else "")
    text = "{{ p.text }}"
    if first:
        loop = "{% for p in m.content %}" + media + "{% endif %}{% endfor %}"
        loop += "{% for p in m.content if p.type == 'text' %}" + text + "{% endfor %}"
    else:
        loop = "{% for p in m.content %}" + media + "{% else %}" + text + "{% endif %}{% endfor %}"
    content = "{% if m.content is string %}{{ m.content }}{% else %}" + loop + "{% endif %}"
    ending = "{% if add_generation_prompt %}" + prompt + "{% endif %}"
    return "{% for m in messages %}" + turn + content + close + "{% endfor %}" + ending


def chatml(image: str, video: str = "", first: bool = False) -> str:
    return parts_template("<|im_start|>{{ m.role }}\n", "<|im_end|>\n", "<|im_start|>assistant\n", image, video, first)
