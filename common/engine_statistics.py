# SPDX-License-Identifier: Apache-2.0
"""What a Python engine tells frontends of its load: a JSON object, in an output of the engine's Triton model.

Its keys are those of `engines.engine.STATISTICS`; an engine with LoRA adapters adds those of LORA, and one of
embeddings MAX_MODEL_LEN. A missing key is a number that the engine does not know.
"""

# The context length in tokens of a model of embeddings, on which files decide that only its engine reads.
MAX_MODEL_LEN = "max_model_len"

# It is sent only if it is the one requested output of a stop.
STATISTICS = "statistics"
# The most adapters in one step, and the names of adapters that have running or waiting requests.
LORA = MAX_LORA, RUNNING_ADAPTERS, WAITING_ADAPTERS = "max_lora", "running_lora_adapters", "waiting_lora_adapters"
