# SPDX-License-Identifier: Apache-2.0
"""Language models that take rows of a table: what vLLM sees of them, and how rows get among the embeddings."""

import inspect
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from vllm import ModelRegistry

from engines.vllm import table_model


class Text(nn.Module):
    """A language model with embeddings of two values."""

    def __init__(self, *, vllm_config: Any, prefix: str = "") -> None:
        super().__init__()
        self.config = vllm_config

    def embed_input_ids(self, input_ids: torch.Tensor) -> torch.Tensor:
        return torch.stack([input_ids, -input_ids], dim=1).float()


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(table_model, "_installed", set())
    models = dict(ModelRegistry.models)
    monkeypatch.setattr(ModelRegistry, "models", models)
    models["Text"] = SimpleNamespace(load_model_cls=lambda: Text)
    table_model.install("Text")
    table_model.install("Text")
    loaded = models["Text"].load_model_cls()
    assert issubclass(loaded, Text) and loaded is not Text
    # vLLM looks at the signature.
    assert "vllm_config" in inspect.signature(loaded.__init__).parameters
    return loaded(vllm_config="given")


def test_rows_take_the_places_of_ids(model: Any):
    ids, mask = torch.tensor([5, 0, 0, 6, 0]), torch.tensor([False, True, True, False, True])
    assert model.embed_input_ids(ids).tolist() == model.embed_input_ids(ids, [], is_multimodal=mask).tolist()
    # vLLM hands over a list of items, or one tensor of items of the same length, and merges them in this order.
    items = model.embed_multimodal(rows=[torch.tensor([[1.0, 2], [3, 4]]), torch.tensor([[7.0, 8]])])
    merged = model.embed_input_ids(ids, items, is_multimodal=mask)
    assert merged.tolist() == [[5, -5], [1, 2], [3, 4], [6, -6], [7, 8]]
    assert model.get_language_model() is model and model.config == "given"


def test_vllm_takes_the_class_for_multimodal(model: Any):
    info = ModelRegistry.models["Text"].inspect_model_cls()
    assert info.supports_multimodal and not info.supports_multimodal_raw_input_only
    limits = SimpleNamespace(get_limit_per_prompt=lambda modality: 999)
    config: Any = SimpleNamespace(architecture="Text", multimodal_config=limits)
    assert table_model.takes_tables(config)
    limits.get_limit_per_prompt = lambda modality: 0
    assert not table_model.takes_tables(config)
    assert not table_model.takes_tables(SimpleNamespace(architecture="Other", multimodal_config=limits))  # type: ignore[arg-type]


@pytest.mark.parametrize("architecture", ["NoSuchModel", "Seeing"])
def test_a_model_that_cannot_take_tables_stops_the_start(architecture: str, monkeypatch: pytest.MonkeyPatch):
    seeing = type("Seeing", (Text,), {"supports_multimodal": True})
    monkeypatch.setitem(ModelRegistry.models, "Seeing", SimpleNamespace(load_model_cls=lambda: seeing))
    with pytest.raises(ValueError, match=architecture):
        table_model.install(architecture)
