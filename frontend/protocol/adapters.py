# SPDX-License-Identifier: Apache-2.0
"""The bodies of the requests that load and unload LoRA adapters, in vLLM's format."""

from typing import Annotated

from pydantic import Field

from frontend.protocol.common import Body

_Text = Annotated[str, Field(min_length=1)]


class UnloadAdapterBody(Body):
    """Which adapter to unload. base_model_name: its model."""

    lora_name: _Text
    base_model_name: str | None = None


class LoadAdapterBody(UnloadAdapterBody):
    """Which adapter to load. base_model_name: needed if several models are served.

    lora_path: a folder on the engine's machine. load_inplace: replace one of this name.
    """

    lora_path: _Text
    load_inplace: bool | None = None
