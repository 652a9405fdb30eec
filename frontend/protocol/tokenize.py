# SPDX-License-Identifier: Apache-2.0
"""The bodies of POST /tokenize and POST /detokenize, in vLLM's format."""

from typing import Annotated

from pydantic import Field

from frontend.protocol.chat import ChatPrompt
from frontend.protocol.common import Body, TokenId


class TokenizeTextBody(Body):
    """A text to tokenize."""

    model: str | None = None
    prompt: str
    add_special_tokens: bool | None = None
    return_token_strs: bool | None = None


class TokenizeChatBody(ChatPrompt):
    """A chat to tokenize."""

    add_special_tokens: bool | None = None
    return_token_strs: bool | None = None


class DetokenizeBody(Body):
    """Token ids to detokenize."""

    model: str | None = None
    tokens: Annotated[list[TokenId], Field(max_length=4_000_000)]
