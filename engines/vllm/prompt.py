# SPDX-License-Identifier: Apache-2.0
"""Build vLLM's prompt of a generation: ids, ids with rows of an embedding table, or ids with images."""

import asyncio
from typing import Any

import torch
from vllm.config import VllmConfig
from vllm.inputs.engine import embeds_input, tokens_input

from common.errors import RequestError
from engines.engine import Generation
from engines.vllm.images import ImageModel, image_model


class Prompts:
    """Builds prompts for one started engine."""

    def __init__(self, config: VllmConfig) -> None:
        self._vocab_size = config.model_config.get_vocab_size()
        self._takes_embeds = config.model_config.enable_prompt_embeds
        self._takes_priority = config.scheduler_config.policy == "priority"
        self._images: ImageModel | None = image_model(config.model_config)

    async def build(self, generation: Generation) -> Any:
        """Build the prompt; raises RequestError if the engine does not support an input.

        It has the form that vLLM's renderer makes: vLLM renders a raw prompt on another thread, which costs more than
        the rendering itself.
        """
        if generation.priority and not self._takes_priority:
            raise RequestError("this engine serves in order of arrival: priority is not supported", param="priority")
        if generation.images is not None and self._images is None:
            raise RequestError("this engine takes no images: its model has no vision tower", param="images")
        if generation.prompt_table is not None:
            if not self._takes_embeds:
                raise RequestError("this engine takes no prompt embeddings: its option enable_prompt_embeds is off")
            return _embeds_prompt(generation.prompt_ids, generation.prompt_table, self._vocab_size)
        if generation.images is not None and self._images is not None:
            # Several milliseconds per image, in which the other streams must not wait.
            return await asyncio.to_thread(self._images.prompt, generation)
        if self._images is not None:
            self._images.check_places(generation.prompt_ids, 0)
        return tokens_input(generation.prompt_ids)


def _embeds_prompt(prompt_ids: list[int], table: torch.Tensor, vocab_size: int) -> Any:
    """Keep ids below the vocabulary size, and replace the others by rows of the table.

    table: [rows, hidden size]. The prompt's embeddings are [prompt length, hidden size].
    """
    ids = torch.tensor(prompt_ids)
    rows = ids - vocab_size
    is_token = rows < 0
    if prompt_ids and int(rows.max()) >= table.shape[0]:
        raise RequestError(f"prompt id {int(ids.max())} is past the table's {table.shape[0]} rows")
    # One pass over up to tens of megabytes. An empty table has no row for the positions of ids.
    embeds = table.new_empty(len(prompt_ids), table.shape[1])
    if len(table):
        torch.index_select(table, 0, rows.clamp(min=0), out=embeds)
    # The rows at the positions of ids must not depend on the table: vLLM's prefix cache is keyed by them as well.
    embeds[is_token] = 0
    return embeds_input(
        prompt_embeds=embeds,
        prompt_token_ids=torch.where(is_token, ids, 0).tolist(),
        is_token_ids=is_token.tolist(),
    )
