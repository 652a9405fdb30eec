# SPDX-License-Identifier: Apache-2.0
"""`encrypted_content` of reasoning items: the reasoning as one opaque text.

Clients that keep no state on the server drop the `content` of a reasoning item and send `encrypted_content` back. There
is nothing to hide, as the item's `content` holds the same text, so it is encoded and not encrypted: any server of any
machine reads it, without a key.
"""

import base64
from typing import Any

_PREFIX = "triton-chat-1."


def seal(text: str) -> str:
    """Encode the text of a reasoning item."""
    return _PREFIX + base64.b64encode(text.encode()).decode()


def unseal(sealed: Any) -> str:
    """Decode what `seal` made; "" for None and what another server made. Raises ValueError if it is damaged."""
    if sealed is None:
        return ""
    if not isinstance(sealed, str):
        raise ValueError("must be a text")
    if not sealed.startswith(_PREFIX):
        return ""
    try:
        return base64.b64decode(sealed.removeprefix(_PREFIX), validate=True).decode()
    except ValueError:
        raise ValueError("is damaged") from None
