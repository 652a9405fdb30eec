# SPDX-License-Identifier: Apache-2.0
"""A checkpoint's tokenizer: text to ids, and messages to text by the chat template."""

import inspect
import json
from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import jinja2
import jinja2.nodes
import tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import _compile_jinja_template

from common.chat.content_form import ContentForm, find_form, fit_content
from common.chat.template import load_template
from common.checks import shorten
from common.errors import RequestError
from common.fast_tokenizer import HUGGINGFACE, faster

# A client's template variables must not override the renderer's own arguments, above all `chat_template`, which would
# let a request bring its own code. `documents` is a variable of templates for retrieval.
RESERVED_KWARGS = {
    *frozenset(inspect.signature(PreTrainedTokenizerBase.apply_chat_template).parameters) - {"documents"},
    "messages",
}

# In transformers' errors for a tokenizer that is code.
_ASKS_FOR_CODE = "trust_remote_code=True"
# Errors of a template on messages that it was not written for; the last three are of templates that nest too deeply
# (RecursionError is a RuntimeError), or write too much.
_TEMPLATE_ERRORS = (
    *(jinja2.TemplateError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError),
    *(RuntimeError, SyntaxError, MemoryError),
)


class ChatTokenizer:
    """Tokenizer and chat template of one checkpoint. Safe to use from several threads.

    Special tokens spelled in a text become those tokens; preprocessing.literal_text prevents that for chats.
    """

    def __init__(self, tokenizer: Any, template: str | None = None, choice: str = HUGGINGFACE) -> None:
        """Wrap a transformers tokenizer; raises ValueError if it has no Rust backend.

        template: the server's own chat template, as Jinja text, which replaces the checkpoint's and the family's.
        choice: what encodes texts, one of common.fast_tokenizer.BACKENDS.
        """
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if not isinstance(backend, tokenizers.Tokenizer):
            raise ValueError(f"tokenizer: {type(tokenizer).__name__} has no tokenizer.json backend; convert it first")
        self._tokenizer = tokenizer
        self.backend: tokenizers.Tokenizer = backend
        self._faster = faster(backend, choice)
        self.template: str | None = template or _template_text(tokenizer.chat_template)
        self.replaces_template = template is not None
        described = getattr(tokenizer, "response_template", None)
        # A description of the model's answers, for transformers; as JSON text.
        self.response_template: str | None = json.dumps(described) if isinstance(described, dict) else None

    @classmethod
    def load(cls, path: str | Path, template: str | None = None, choice: str = HUGGINGFACE) -> "ChatTokenizer":
        """Load from a local folder without running code in it.

        template: a file, or Jinja text, with the server's own chat template. choice: what encodes texts, one of
        common.fast_tokenizer.BACKENDS. Raises ValueError naming the path or the choice.
        """
        text = load_template(template) if template else None
        try:
            tokenizer = AutoTokenizer.from_pretrained(str(path), trust_remote_code=False, local_files_only=True)  # nosec B615 # a local folder
        except (OSError, ValueError, ImportError) as error:
            if _ASKS_FOR_CODE in str(error):
                raise ValueError(
                    f"tokenizer: that of '{path}' is code in the checkpoint, which is never run, also not with "
                    "--trust-remote-code: put its tokenizer.json there, and take auto_map out of tokenizer_config.json"
                ) from error
            raise ValueError(f"tokenizer: cannot load '{path}': {error}") from error
        return cls(tokenizer, text, choice)

    def encode(self, text: str, add_special_tokens: bool) -> list[int]:
        """Ids of `text`. add_special_tokens: add BOS and similar tokens, as the tokenizer's post-processor does."""
        if self._faster is not None:
            found = self._faster.encode(text, add_special_tokens)
            if found is not None:
                return found
        # The fast variant omits the tokens' offsets in the text, which are not needed and take a fifth of the time.
        (encoding,) = self.backend.encode_batch_fast([text], add_special_tokens=add_special_tokens)
        ids: list[int] = encoding.ids
        return ids

    def token_id(self, token: str) -> int | None:
        """Id of a token of the vocabulary, or None."""
        return self.backend.token_to_id(token)

    def token_strs(self, ids: Sequence[int]) -> list[str]:
        """The vocabulary's text of each id; "" of those past the vocabulary, which stand for images."""
        return [self.backend.id_to_token(token_id) or "" for token_id in ids]

    def bos_text(self) -> str:
        """The text of the BOS token if the tokenizer puts it before a text, else ""."""
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

        Raises RequestError with the template's own message if it refuses the chat.
        """
        template_kwargs = template_kwargs or {}
        reserved = RESERVED_KWARGS.intersection(template_kwargs)
        if reserved:
            raise RequestError(f"chat_template_kwargs cannot set '{min(reserved)}'", param="chat_template_kwargs")
        source = template or self.template
        if source is None:
            raise RequestError("the served model has no chat template; use /v1/completions", param="messages")
        try:
            return self._apply(
                source,
                fit_content(messages, _content_form(self, source)),
                tools,
                add_generation_prompt=add_generation_prompt,
                continue_final_message=continue_final_message,
                **template_kwargs,
            )
        except _TEMPLATE_ERRORS as error:
            raise RequestError(_refusal(error, continue_final_message), param="messages") from error

    def _apply(
        self,
        source: str,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None = None,
        **kwargs: Any,
    ) -> str:
        apply = partial(self._tokenizer.apply_chat_template, messages, chat_template=source, tokenize=False, **kwargs)
        try:
            rendered: str = apply(tools=tools or None)
        except TypeError:
            if tools:
                raise
            rendered = apply(tools=[])  # Templates for chats with tools iterate over them in every chat.
        return rendered


@lru_cache(maxsize=64)
def _content_form(tokenizer: ChatTokenizer, source: str) -> ContentForm:
    """The form in which a template takes a message's content."""

    def render(messages: list[dict[str, Any]]) -> str | None:
        try:
            return tokenizer._apply(source, messages, add_generation_prompt=True)
        except _TEMPLATE_ERRORS:
            return None

    return find_form(render)


@lru_cache(maxsize=16)
def parse_template(source: str) -> jinja2.nodes.Template | None:
    """The syntax tree of a chat template, with the extensions of Jinja that templates may use; None if it has an error.

    Not to be changed, because it is kept.
    """
    try:
        tree: jinja2.nodes.Template = _compile_jinja_template(source).environment.parse(source)
    except jinja2.TemplateError:
        return None
    return tree


def _template_text(template: Any) -> str | None:
    # Older checkpoints have several named templates.
    chosen = template.get("default") if isinstance(template, dict) else template
    return chosen if isinstance(chosen, str) and chosen else None


def _refusal(error: Exception, continued: bool) -> str:
    if type(error) is jinja2.TemplateError:  # raise_exception() in the template: a message for the caller.
        return f"the chat template refuses this chat: {shorten(str(error), 300)}"
    if continued and isinstance(error, ValueError):  # transformers' message repeats the whole chat.
        return "the chat template does not let the last message be continued"
    return f"the chat template cannot render this chat: {shorten(str(error), 300)}"
