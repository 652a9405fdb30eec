# SPDX-License-Identifier: Apache-2.0
"""Build vLLM's prompt of a generation: ids, alone or with rows of an embedding table, images, or features of them."""

import asyncio
from typing import Any

import torch
from vllm.config import ModelConfig, VllmConfig
from vllm.inputs.engine import tokens_input

from common.errors import RequestError
from engines.engine import Generation
from engines.vllm.features import NAME, unpack
from engines.vllm.images import ImageModel, image_model
from engines.vllm.prompt_table import table_prompt
from engines.vllm.table_model import takes_tables


def takes_features(config: ModelConfig) -> bool:
    """Whether the served model takes what its own processor makes of pictures."""
    return config.multimodal_config is not None and not takes_tables(config) and image_model(config) is None


class Prompts:
    """Builds prompts for one started engine."""

    def __init__(self, config: VllmConfig) -> None:
        self._vocab_size = config.model_config.get_vocab_size()
        self._hidden_size = config.model_config.get_hidden_size()
        self._takes_tables = takes_tables(config.model_config)
        self._takes_priority = config.scheduler_config.policy == "priority"
        self._images: ImageModel | None = image_model(config.model_config)
        self._takes_features = takes_features(config.model_config)

    async def build(self, generation: Generation) -> Any:
        """Build the prompt; raises RequestError if the engine does not support an input.

        It has the form that vLLM's renderer makes: vLLM renders a raw prompt on another thread, which costs more than
        the rendering itself.
        """
        prompt = await self._prompt(generation)
        if generation.cache_salt:
            prompt["cache_salt"] = generation.cache_salt
        return prompt

    async def _prompt(self, generation: Generation) -> Any:
        if generation.priority and not self._takes_priority:
            raise RequestError("this engine serves in order of arrival: priority is not supported", param="priority")
        if generation.images is not None and self._images is None:
            raise RequestError("this engine takes no images: its model has no vision tower", param="images")
        if generation.prompt_table is not None:
            if not self._takes_tables:
                raise RequestError(
                    "this engine takes no prompt embeddings: its option enable_prompt_embeds is off",
                    param="prompt_embedding_table",
                )
            return await self._table_prompt(generation, generation.prompt_table)
        if generation.images is not None and self._images is not None:
            # Several milliseconds per image, in which the other streams must not wait.
            return await asyncio.to_thread(self._images.prompt, generation)
        if generation.multimodal is not None:
            if not self._takes_features:
                raise RequestError(
                    "this engine takes no features of pictures: its model has no processor for them", param=NAME
                )
            return unpack(generation.multimodal.take(), generation.prompt_ids)
        if self._images is not None:
            self._images.check_places(generation.prompt_ids, 0)
        return tokens_input(generation.prompt_ids)

    async def _table_prompt(self, generation: Generation, table: torch.Tensor) -> Any:
        if generation.prompt_logprobs is not None:
            raise RequestError("rows of a prompt embedding table have no log-probabilities", param="prompt_logprobs")
        inputs = generation.prompt_ids, table, generation.prompt_extra_ids, self._vocab_size, self._hidden_size
        if generation.prompt_extra_ids is None:
            # To hash the rows takes tens of milliseconds, in which the other streams must not wait.
            return await asyncio.to_thread(table_prompt, *inputs)
        return table_prompt(*inputs)
