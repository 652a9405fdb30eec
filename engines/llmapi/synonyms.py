# SPDX-License-Identifier: Apache-2.0
"""vLLM's names of options that TensorRT-LLM's LLM API has under other names."""

# vLLM's name -> TensorRT-LLM's, which is accepted too.
SYNONYMS = {
    "max_model_len": "max_seq_len",
    "max_num_seqs": "max_batch_size",
    "max_num_batched_tokens": "max_num_tokens",
}
