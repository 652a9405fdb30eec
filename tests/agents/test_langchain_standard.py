# SPDX-License-Identifier: Apache-2.0
"""LangChain's standard test-suite with `ChatOpenAI`; what a scripted engine must answer is in tests/support/agent_rules.py."""

import os
from typing import Any, Literal

from langchain_core.messages import AIMessage, BaseMessageChunk
from langchain_openai import ChatOpenAI
from langchain_tests.integration_tests import ChatModelIntegrationTests

UsageDetail = Literal["audio_input", "audio_output", "reasoning_output", "cache_read_input", "cache_creation_input"]


class TestChatOpenAI(ChatModelIntegrationTests):
    """A text model: no images, audio or documents. Anthropic's message form is not the OpenAI API's."""

    @property
    def chat_model_class(self) -> type[ChatOpenAI]:
        return ChatOpenAI

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {
            "model": "qwen3",
            "base_url": f"{os.environ['TRITON_CHAT_TEST_URL']}/v1",
            "api_key": "unused",
            "max_retries": 0,
            "timeout": 30,
            # By default LangChain only requests usage from OpenAI's own address.
            "stream_usage": True,
        }

    @property
    def has_tool_calling(self) -> bool:
        return True

    @property
    def has_tool_choice(self) -> bool:
        return True

    @property
    def has_structured_output(self) -> bool:
        return True

    @property
    def structured_output_kwargs(self) -> dict[str, Any]:
        return {"method": "json_schema"}

    @property
    def supports_json_mode(self) -> bool:
        return True

    @property
    def returns_usage_metadata(self) -> bool:
        return True

    @property
    def supported_usage_metadata_details(self) -> dict[Literal["invoke", "stream"], list[UsageDetail]]:
        details: list[UsageDetail] = ["reasoning_output", "cache_read_input"]
        return {"invoke": details, "stream": details}

    @property
    def model_override_value(self) -> str:
        return "qwen3-other-name"

    def invoke_with_reasoning_output(self, *, stream: bool = False) -> AIMessage:
        return self._ask("Think first: how many legs has a spider?", stream=stream)

    def invoke_with_cache_read_input(self, *, stream: bool = False) -> AIMessage:
        return self._ask("Hello", stream=stream)

    def _ask(self, prompt: str, *, stream: bool) -> AIMessage:
        model = ChatOpenAI(**self.chat_model_params)
        if not stream:
            return model.invoke(prompt)
        full: BaseMessageChunk | None = None
        for chunk in model.stream(prompt):
            full = chunk if full is None else full + chunk
        assert isinstance(full, AIMessage)
        return full
