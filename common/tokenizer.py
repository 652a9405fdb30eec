# SPDX-License-Identifier: Apache-2.0
"""A checkpoint's tokenizer: text to ids, and messages to text through the checkpoint's chat template."""

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from common.checks import shorten
from common.errors import RequestError

# A client's template variables must not reach the renderer's own arguments: `chat_template` above all, which would
# let a request bring code of its own. `documents` is a variable that templates for retrieval read.
RESERVED_KWARGS = frozenset(inspect.signature(PreTrainedTokenizerBase.apply_chat_template).parameters) - {"documents"}

# What a template raises on messages that it was not written for.
_TEMPLATE_ERRORS = (jinja2.TemplateError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError)


class ChatTokenizer:
    """Tokenizer and chat template of one checkpoint. Safe to use from several threads.

    Special tokens spelled out in a message (`<|im_end|>`) become those tokens, as in Hugging Face, vLLM and
    TensorRT-LLM: a prompt that is rendered to text first cannot tell them apart.
    """

    def __init__(self, tokenizer: Any) -> None:
        """tokenizer: a transformers tokenizer with a Rust backend. Raises ValueError where it has none."""
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if not isinstance(backend, tokenizers.Tokenizer):
            raise ValueError(f"tokenizer: {type(tokenizer).__name__} has no tokenizer.json backend; convert it first")
        self._tokenizer = tokenizer
        self.backend: tokenizers.Tokenizer = backend
        self.template: str | None = _template_text(tokenizer.chat_template)

    @classmethod
    def load(cls, path: str | Path) -> "ChatTokenizer":
        """Load from a local folder, without running code from it. Raises ValueError naming the path."""
        try:
            tokenizer = AutoTokenizer.from_pretrained(str(path), trust_remote_code=False, local_files_only=True)  # nosec B615 # a local folder
        except (OSError, ValueError, ImportError) as error:
            raise ValueError(f"tokenizer: cannot load '{path}': {error}") from error
        return cls(tokenizer)

    def encode(self, text: str, add_special_tokens: bool) -> list[int]:
        """Ids of `text`. add_special_tokens: put BOS and the like around it, as the tokenizer's post-processor says."""
        # Without each token's place in the text, which nobody asks for and costs a fifth of the time.
        (encoding,) = self.backend.encode_batch_fast([text], add_special_tokens=add_special_tokens)
        ids: list[int] = encoding.ids
        return ids

    def token_id(self, token: str) -> int | None:
        """Id of a token that is in the vocabulary as it stands, else None."""
        return self.backend.token_to_id(token)

    def bos_text(self) -> str:
        """The BOS token's text where the tokenizer puts it before a text, else ""."""
        bos = self._tokenizer.bos_token
        return bos if bos and self.encode("", add_special_tokens=True)[:1] == [self.token_id(bos)] else ""

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None = None,
        *,
        template: str | None = None,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        template_kwargs: Mapping[str, Any] | None = None,
    ) -> str:
        """The prompt text of a chat. template: Jinja source instead of the checkpoint's own.

        Raises RequestError with the template's own message where it refuses the chat.
        """
        template_kwargs = template_kwargs or {}
        reserved = RESERVED_KWARGS.intersection(template_kwargs)
        if reserved:
            raise RequestError(f"chat_template_kwargs cannot set '{min(reserved)}'", param="chat_template_kwargs")
        if template is None and self.template is None:
            raise RequestError("the served model has no chat template; use /v1/completions", param="messages")
        try:
            rendered: str = self._tokenizer.apply_chat_template(
                messages,
                tools=tools or None,
                chat_template=template or self.template,
                add_generation_prompt=add_generation_prompt,
                continue_final_message=continue_final_message,
                tokenize=False,
                **template_kwargs,
            )
        except _TEMPLATE_ERRORS as error:
            raise RequestError(_refusal(error, continue_final_message), param="messages") from error
        return rendered


def _template_text(template: Any) -> str | None:
    # Older checkpoints name several templates; "default" is the one that is meant without a name.
    chosen = template.get("default") if isinstance(template, dict) else template
    return chosen if isinstance(chosen, str) and chosen else None


def _refusal(error: Exception, continued: bool) -> str:
    if type(error) is jinja2.TemplateError:  # raise_exception() of the template: words meant for the caller.
        return f"the chat template refuses these messages: {shorten(str(error), 300)}"
    if continued and isinstance(error, ValueError):  # transformers' message repeats the whole chat.
        return "the chat template does not let the last message be continued"
    return f"the chat template cannot render these messages: {shorten(str(error), 300)}"
