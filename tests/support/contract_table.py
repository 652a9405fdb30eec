# SPDX-License-Identifier: Apache-2.0
"""NVIDIA's `tensorrtllm` C++ backend (all_models/inflight_batcher_llm at TensorRT-LLM 1.2.1) as a table.

Columns: name, data type, dims without the batch dimension, and flags: "s" scalar (reshape to []), "r" ragged,
"!" required. It is written from the upstream files; the tests compare this repository's configs with it.
"""

Row = tuple[str, str, tuple[int, ...], str]


def rows(names: str, dtype: str, dims: tuple[int, ...], flags: str = "") -> list[Row]:
    """Make one row per name."""
    return [(name, dtype, dims, flags) for name in names.split()]


INPUTS: list[Row] = [
    *rows("input_ids", "INT32", (-1,), "r"),
    *rows("input_lengths request_output_len", "INT32", (1,), "s!"),
    *rows("num_return_sequences end_id pad_id beam_width runtime_top_k runtime_top_p_reset_ids", "INT32", (1,), "s"),
    *rows("min_tokens prompt_vocab_size encoder_output_lengths decoder_input_lengths", "INT32", (1,), "s"),
    *rows("decoder_input_ids draft_input_ids", "INT32", (-1,), "r"),
    *rows("stop_words_list bad_words_list", "INT32", (2, -1), "r"),
    *rows("embedding_bias", "FP32", (-1,), "r"),
    *rows("temperature runtime_top_p runtime_top_p_min runtime_top_p_decay len_penalty", "FP32", (1,), "s"),
    *rows("repetition_penalty presence_penalty frequency_penalty", "FP32", (1,), "s"),
    *rows("beam_search_diversity_rate draft_acceptance_threshold", "FP32", (1,), "s"),
    *rows("early_stopping return_log_probs return_context_logits return_generation_logits", "BOOL", (1,), "s"),
    *rows("return_perf_metrics return_num_input_tokens return_num_output_tokens", "BOOL", (1,), "s"),
    *rows("exclude_input_in_output stop streaming", "BOOL", (1,), "s"),
    *rows("seed lora_task_id", "UINT64", (1,), "s"),
    *rows("prompt_embedding_table", "BF16", (-1, -1), "r"),
    *rows("prompt_table_extra_ids", "UINT64", (-1,), "r"),
    *rows("mrope_rotary_cos_sin", "FP32", (-1,)),
    *rows("mrope_position_deltas", "INT64", (1,)),
    *rows("lora_weights", "FP16", (-1, -1), "r"),
    *rows("lora_config", "INT32", (-1, 3), "r"),
    *rows("guided_decoding_guide_type guided_decoding_guide", "STRING", (1,), "r"),
    *rows("retention_token_range_starts retention_token_range_ends", "INT32", (-1,), "r"),
    *rows("retention_token_range_priorities retention_token_range_durations_ms", "INT32", (-1,), "r"),
    *rows("retention_decode_priority retention_decode_duration_ms", "INT32", (1,), "r"),
    *rows("lookahead_window_size lookahead_ngram_size lookahead_verification_set_size", "INT32", (1,), "r"),
]

OUTPUTS: list[Row] = [
    *rows("output_ids", "INT32", (-1, -1)),
    *rows("sequence_length", "INT32", (-1,)),
    *rows("cum_log_probs", "FP32", (-1,)),
    *rows("output_log_probs", "FP32", (-1, -1)),
    *rows("context_logits", "FP32", (-1, -1)),
    *rows("generation_logits", "FP32", (-1, -1, -1)),
    *rows("batch_index sequence_index kv_cache_alloc_new_blocks kv_cache_reused_blocks", "INT32", (1,)),
    *rows("kv_cache_alloc_total_blocks total_accepted_draft_tokens total_draft_tokens", "INT32", (1,)),
    *rows("num_input_tokens num_output_tokens", "INT32", (1,)),
    *rows("arrival_time_ns first_scheduled_time_ns first_token_time_ns last_token_time_ns", "INT64", (1,)),
    *rows("acceptance_rate", "FP32", (1,)),
]

# `parameters` of the backend's config.
PARAMETERS = frozenset(
    name
    for names in (
        "gpt_model_type gpt_model_path batch_scheduler_policy enable_chunked_context max_beam_width decoding_mode",
        "exclude_input_in_output normalize_log_probs max_tokens_in_paged_kv_cache kv_cache_free_gpu_mem_fraction",
        "kv_cache_host_memory_bytes kv_cache_onboard_blocks enable_kv_cache_reuse max_attention_window_size sink_token_length",
        "cancellation_check_period_ms stats_check_period_ms gpu_device_ids participant_ids num_nodes executor_worker_path",
        "lora_cache_optimal_adapter_size lora_cache_max_adapter_size lora_cache_gpu_memory_fraction",
        "lora_cache_host_memory_bytes lookahead_window_size lookahead_ngram_size lookahead_verification_set_size",
        "medusa_choices eagle_choices gpu_weights_percent guided_decoding_backend xgrammar_tokenizer_info_path tokenizer_dir",
    )
    for name in names.split()
)

# This project's extensions, on Python engines only.
EXTENDED_INPUTS: list[Row] = rows("images", "UINT8", (-1, -1, -1, 3), "r")
EXTENDED_INPUTS += rows("multimodal", "UINT8", (-1,), "r")
EXTENDED_INPUTS += rows("multimodal_memory", "INT64", (4,))
EXTENDED_INPUTS += rows("reasoning_open", "INT32", (1,), "s")
EXTENSIONS: list[Row] = [
    *rows("finish_reason num_cached_tokens reasoning_open", "INT32", (1,)),
    *rows("top_log_probs_ids prompt_log_probs_ids", "INT32", (-1, -1)),
    *rows("top_log_probs prompt_log_probs", "FP32", (-1, -1)),
    *rows("prompt_log_probs_ranks", "INT32", (-1,)),
    *rows("stream_id", "INT64", (1,)),
    *rows("error build_info adapters statistics", "STRING", (1,)),
    *rows("token_batch", "UINT8", (-1,)),
]

# Client-facing names of the upstream `ensemble`.
ENSEMBLE_INPUTS: list[Row] = [
    *rows("text_input guided_decoding_guide_type guided_decoding_guide", "STRING", (1,)),
    *rows("max_tokens end_id pad_id top_k min_tokens beam_width num_return_sequences", "INT32", (1,)),
    *rows("top_p temperature length_penalty repetition_penalty presence_penalty frequency_penalty", "FP32", (1,)),
    *rows("seed lora_task_id", "UINT64", (1,)),
    *rows("return_log_probs return_num_input_tokens return_num_output_tokens stream", "BOOL", (1,)),
    *rows("exclude_input_in_output", "BOOL", (1,)),
    *rows("stop_words bad_words embedding_bias_words", "STRING", (-1,)),
    *rows("embedding_bias_weights", "FP32", (-1,)),
]

# Upstream ensemble input -> input of `tensorrt_llm`, if the names differ.
RENAMED = {
    "top_k": "runtime_top_k",
    "top_p": "runtime_top_p",
    "length_penalty": "len_penalty",
    "stream": "streaming",
}
