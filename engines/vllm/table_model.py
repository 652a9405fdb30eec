# SPDX-License-Identifier: Apache-2.0
"""Register a language model with vLLM as one that takes rows of a prompt embedding table as images.

vLLM's own prompt embeddings would put the engine on vLLM's older model runner, for text as well (0.25), and hash every
row. As a multimodal input the rows are keyed by the request's hashes, and a prompt without them is plain ids.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from vllm import ModelRegistry
from vllm.config import ModelConfig
from vllm.model_executor.models.interfaces import SupportsMultiModal, supports_multimodal
from vllm.model_executor.models.utils import _merge_multimodal_embeddings
from vllm.multimodal import MULTIMODAL_REGISTRY
from vllm.multimodal.processing import BaseMultiModalProcessor, BaseProcessingInfo
from vllm.multimodal.processing.dummy_inputs import BaseDummyInputsBuilder

from engines.vllm.prompt_table import ITEM_ROWS, MODALITY, blank_prompt

# Architectures that are registered in this process.
_installed: set[str] = set()


def install(architecture: str) -> None:
    """Replace vLLM's class of a language model, in each process that loads it; again is a no-op.

    Raises ValueError if vLLM has no class of that name, or one that takes images itself.
    """
    if architecture in _installed:
        return
    known = ModelRegistry.models.get(architecture)
    base: Any = None if known is None else known.load_model_cls()
    if base is None or supports_multimodal(base):
        raise ValueError(f"vLLM has no language model {architecture!r} that could take prompt embeddings")
    # The class, not its name: vLLM inspects a named class in another process, where this has not run.
    model = type(architecture, (_TableModel, base), {"__init__": base.__init__, "_embed_tokens": base.embed_input_ids})
    register = MULTIMODAL_REGISTRY.register_processor(_Processor, info=_Info, dummy_inputs=_Dummies)
    ModelRegistry.register_model(architecture, register(model))
    _installed.add(architecture)


def takes_tables(config: ModelConfig) -> bool:
    """Whether the served model takes rows of a prompt embedding table."""
    limits = config.multimodal_config
    return config.architecture in _installed and limits is not None and limits.get_limit_per_prompt(MODALITY) > 0


class _TableModel(SupportsMultiModal):
    """What makes a language model take rows: its "encoder" returns them as they are.

    Its subclasses have the language model's own __init__, which the interface, a protocol, would hide, and its
    embed_input_ids as `_embed_tokens`.
    """

    _embed_tokens: Callable[[torch.Tensor], torch.Tensor]

    def embed_multimodal(self, **kwargs: Any) -> Any:
        """Rows of each item, [n, hidden size], in a list or, if all have the same number, as one tensor."""
        return kwargs["rows"]

    def embed_input_ids(
        self,
        input_ids: torch.Tensor,
        multimodal_embeddings: Any = None,
        *,
        is_multimodal: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The embeddings of ids [n], with rows where `is_multimodal` [n] is set."""
        embeds = self._embed_tokens(input_ids)
        if is_multimodal is None or multimodal_embeddings is None or len(multimodal_embeddings) == 0:
            return embeds
        return _merge_multimodal_embeddings(embeds, multimodal_embeddings, is_multimodal)

    def get_language_model(self) -> Any:
        """The model itself."""
        return self


class _Info(BaseProcessingInfo):
    def get_supported_mm_limits(self) -> Mapping[str, int | None]:
        return {MODALITY: None}

    def get_mm_max_tokens_per_item(self, seq_len: int, mm_counts: Mapping[str, int]) -> Mapping[str, int]:
        return {MODALITY: ITEM_ROWS}


class _Dummies(BaseDummyInputsBuilder[_Info]):
    def get_dummy_text(self, mm_counts: Mapping[str, int]) -> str:
        return ""

    def get_dummy_mm_data(self, *args: Any, **kwargs: Any) -> Any:
        return {}


class _Processor(BaseMultiModalProcessor[_Info]):
    """vLLM asks it only for a dummy, to size its caches and to warm up: rows arrive as finished inputs."""

    def apply(self, *args: Any, **kwargs: Any) -> Any:
        return blank_prompt(self.info.ctx.model_config)

    def _get_mm_fields_config(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError

    def _get_prompt_updates(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError
