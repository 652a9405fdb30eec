# SPDX-License-Identifier: Apache-2.0
"""What a checkpoint is for, by its files: text generation, or embeddings and the scores of pairs."""

from pathlib import Path

from common.checkpoint import read_json
from common.served_model import CHAT, EMBEDDING

# The file in which sentence-transformers lists what follows the transformer, such as the pooling.
_MODULES = "modules.json"
# Ends of names of architectures that are no generators, and whole names of encoders. Other names that end in "Model"
# may be either: those of InternVL and GPT-2 do.
_SUFFIXES = ("ForSequenceClassification", "ForTextEncoding", "EmbeddingModel", "BidirectionalModel")
_ENCODERS = frozenset(
    {
        "BertModel",
        "BertForMaskedLM",
        "Gemma2Model",
        "Gemma3TextModel",
        "GteModel",
        "GteNewModel",
        "LlamaModel",
        "MistralModel",
        "ModernBertModel",
        "NomicBertModel",
        "Qwen2Model",
        "Qwen3Model",
        "RobertaForMaskedLM",
        "RobertaModel",
        "XLMRobertaModel",
    }
)


def model_kind(folder: Path) -> str:
    """The kind of a checkpoint, one of `served_model.KINDS`; CHAT if nothing speaks for the other.

    Raises ValueError if its config.json is not a JSON object.
    """
    architectures = read_json(folder / "config.json").get("architectures") or ()
    pools = (folder / _MODULES).is_file()
    return EMBEDDING if pools or any(map(_embeds, architectures)) else CHAT


def _embeds(architecture: str) -> bool:
    return architecture in _ENCODERS or architecture.endswith(_SUFFIXES)
