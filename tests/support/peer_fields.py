# SPDX-License-Identifier: Apache-2.0
"""The request fields of other servers and clients, by endpoint: read from what is installed, or noted here.

Of vLLM and the clients of OpenAI and Anthropic the types are installed. SGLang is not, nor is vLLM 0.33; their names are
those of their protocol modules, by version.
"""

from collections.abc import Mapping
from typing import Any

from typing_extensions import get_type_hints

# SGLang 0.5.23: what its request models have.
_SGLANG_COMMON = """
    bootstrap_host bootstrap_port bootstrap_room cache_salt data_parallel_rank disagg_prefill_dp_rank extra_key
    frequency_penalty min_p model presence_penalty priority repetition_penalty routed_dp_rank session_id stop stream
    temperature top_k top_p user
"""
_SGLANG_SAMPLED = """
    custom_logit_processor custom_params ebnf ignore_eos images_config logit_bias logprobs lora_path max_tokens
    min_tokens mm_processor_kwargs n no_stop_trim regex response_format return_cached_tokens_details
    return_hidden_states return_routed_experts return_spec_tokens_details return_token_ids rid
    routed_experts_start_len seed session_params skip_special_tokens stop_regex stop_token_ids stream_options watermark
"""
SGLANG: Mapping[str, frozenset[str]] = {
    "chat": frozenset(
        f"""{_SGLANG_COMMON} {_SGLANG_SAMPLED}
        chat_template_kwargs continue_final_message input_ids max_completion_tokens max_dynamic_patch messages
        min_dynamic_patch parallel_tool_calls reasoning_effort return_flat_raw_output_top_logprobs
        return_flat_raw_top_logprobs_b64 return_input_ids_in_sglext return_meta_info return_output_ids_in_sglext
        return_prompt_token_ids return_sampling_mask sampling_logprobs_mode separate_reasoning stream_reasoning task
        thinking tool_choice tools top_logprobs use_audio_in_video video_config
    """.split()
    ),
    "completions": frozenset(
        f"""{_SGLANG_COMMON} {_SGLANG_SAMPLED}
        best_of custom_labels echo json_schema prompt suffix
    """.split()
    ),
    "responses": frozenset(
        f"""{_SGLANG_COMMON}
        background chat_template_kwargs include input instructions max_output_tokens max_tool_calls metadata
        parallel_tool_calls previous_response_id reasoning request_id service_tier store text tool_choice tools
        top_logprobs truncation
    """.split()
    ),
    "messages": frozenset(
        [
            "betas",
            "bootstrap_host",
            "bootstrap_port",
            "bootstrap_room",
            "disagg_prefill_dp_rank",
            "max_tokens",
            "messages",
            "metadata",
            "model",
            "output_config",
            "routed_dp_rank",
            "stop_sequences",
            "stream",
            "system",
            "temperature",
            "thinking",
            "tool_choice",
            "tools",
            "top_k",
            "top_p",
        ]
    ),
    "embeddings": frozenset(
        [
            "dimensions",
            "embed_override_token_id",
            "embed_overrides",
            "encoding_format",
            "input",
            "lora_path",
            "model",
            "priority",
            "rid",
            "user",
        ]
    ),
    "rerank": frozenset(["query", "documents", "instruct", "top_n", "return_documents"]),
    # Its /v1/score asks a language model for the probabilities of tokens, which is another API.
}
# vLLM 0.33: the fields that 0.32 does not have.
VLLM_033: Mapping[str, frozenset[str]] = {
    "chat": frozenset({"return_weight_versions"}),
    "completions": frozenset({"return_weight_versions"}),
    "responses": frozenset(
        {"prompt_cache_options", "prompt_cache_retention", "safety_identifier", "spaces_between_special_tokens"}
    ),
}


def openai_fields() -> dict[str, set[str]]:
    """The fields of the installed OpenAI client."""
    from openai.types import completion_create_params, embedding_create_params
    from openai.types.chat import completion_create_params as chat_create_params
    from openai.types.responses import response_create_params

    kinds: dict[str, Any] = {
        "chat": chat_create_params.CompletionCreateParamsStreaming,
        "completions": completion_create_params.CompletionCreateParamsStreaming,
        "responses": response_create_params.ResponseCreateParamsStreaming,
        "embeddings": embedding_create_params.EmbeddingCreateParams,
    }
    return {endpoint: set(get_type_hints(kind)) for endpoint, kind in kinds.items()}


def anthropic_fields() -> dict[str, set[str]]:
    """The fields of the installed Anthropic client, of its beta API too."""
    from anthropic.types import message_count_tokens_params, message_create_params
    from anthropic.types.beta import message_count_tokens_params as beta_count_tokens_params
    from anthropic.types.beta import message_create_params as beta_create_params

    kinds: tuple[Any, ...] = (
        message_create_params.MessageCreateParamsStreaming,
        message_count_tokens_params.MessageCountTokensParams,
        beta_create_params.MessageCreateParamsStreaming,
        beta_count_tokens_params.MessageCountTokensParams,
    )
    return {"messages": {name for kind in kinds for name in get_type_hints(kind)}}


def vllm_fields() -> dict[str, set[str]]:
    """The fields of the installed vLLM's request models."""
    from vllm.entrypoints.anthropic.protocol import AnthropicCountTokensRequest, AnthropicMessagesRequest
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
    from vllm.entrypoints.openai.completion.protocol import CompletionRequest
    from vllm.entrypoints.openai.responses.protocol import ResponsesRequest
    from vllm.entrypoints.pooling.embed import protocol as embed
    from vllm.entrypoints.pooling.scoring import protocol as scoring

    kinds: dict[str, tuple[Any, ...]] = {
        "chat": (ChatCompletionRequest,),
        "completions": (CompletionRequest,),
        "responses": (ResponsesRequest,),
        "messages": (AnthropicMessagesRequest, AnthropicCountTokensRequest),
        "embeddings": (embed.EmbeddingCompletionRequest, embed.EmbeddingChatRequest, embed.EmbeddingBatchChatRequest),
        "rerank": (scoring.RerankRequest,),
        "score": (
            *(scoring.ScoreTextRequest, scoring.ScoreDataRequest),
            *(scoring.ScoreQueriesDocumentsRequest, scoring.ScoreQueriesItemsRequest),
        ),
    }
    return {endpoint: {name for kind in found for name in kind.model_fields} for endpoint, found in kinds.items()}
