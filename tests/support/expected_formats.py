# SPDX-License-Identifier: Apache-2.0
"""What the published chat templates say of their families' formats, read from them by eye."""

# Template -> (family, reasoning format, tool format). "generic": the template knows no tools at all. None for tools: it
# writes calls in a form that no parser reads.
EXPECTED: dict[str, tuple[str, str | None, str | None]] = {
    # Names as keys, which no parser reads.
    "Apertus-8B-Instruct": ("apertus", None, None),
    "Apriel-1.6-15b-Thinker-fixed": ("apriel", "apriel", "apriel"),
    "Bielik-11B-v3.0-Instruct": ("bielik", "think", "hermes"),
    "ByteDance-Seed-OSS": ("seed_oss", "seed", "seed_oss"),
    "Cohere2MoE": ("cohere", "cohere", "cohere_command"),
    # A fenced list after "Action:".
    "CohereForAI-c4ai-command-r-plus-tool_use": ("command_r", None, None),
    "CohereForAI-c4ai-command-r7b-12-2024-tool_use": ("cohere", "cohere", "cohere_command"),
    "GLM-4.6": ("glm", "think", "glm45"),
    "GLM-4.7-Flash": ("glm", "think", "glm45"),
    "GigaChat3-10B-A1.8B": ("gigachat3", None, "gigachat3"),
    "GigaChat3.1-10B-A1.8B": ("gigachat3", None, "gigachat3"),
    # This edition of the template has no tools.
    "HuggingFaceTB-SmolLM3-3B": ("smollm3", "think", "generic"),
    "Kimi-K2-Instruct": ("kimi_k2", None, "kimi_k2"),
    "Kimi-K2-Thinking": ("kimi_k2", "think", "kimi_k2"),
    "Kimi-K3": ("kimi_k3", "kimi_k3", "kimi_k3"),
    "LFM2-8B-A1B": ("lfm2", None, "lfm2"),
    "LFM2.5-8B-A1B": ("lfm2", "think", "lfm2"),
    # Lists tools, and leaves it to the caller to write calls into the content. The family has one form of calls.
    "LFM2.5-Instruct": ("lfm2", "think", "lfm2"),
    # MiMo and MiniMax M1 write their reasoning without being asked by the template.
    "MiMo-VL": ("mimo", "think", "hermes"),
    "MiniMax-M1": ("minimax_m1", "think", "minimax_m1"),
    "MiniMax-M2": ("minimax_m2", "think", "minimax_m2"),
    "MiniMax-M3": ("minimax_m3", "minimax_m3", "minimax_m3"),
    "Mistral-Small-3.2-24B-Instruct-2506": ("mistral", None, "mistral_v11"),
    "NVIDIA-Nemotron-3-Nano-30B-A3B-BF16": ("nemotron", "think", "qwen3_coder"),
    "NVIDIA-Nemotron-Nano-v2": ("nemotron", "think", "nemotron_json"),
    "NousResearch-Hermes-2-Pro-Llama-3-8B-tool_use": ("hermes", None, "hermes"),
    "NousResearch-Hermes-3-Llama-3.1-8B-tool_use": ("hermes", None, "hermes"),
    # With Qwen3's switch.
    "Qwen-QwQ-32B": ("qwen3", "think", "hermes"),
    "Qwen-Qwen2.5-7B-Instruct": ("qwen2.5", None, "hermes"),
    "Qwen-Qwen3-0.6B": ("qwen3", "think", "hermes"),
    "Qwen3-Coder": ("qwen3_coder", None, "qwen3_coder"),
    "Qwen3.5-4B": ("qwen3.5", "think", "qwen3_coder"),
    "Reka-Edge": ("reka", "think", "hermes"),
    "Spark2.5": ("spark", "think", "glm45"),
    "StepFun3.5-Flash": ("step3.5", "think", "qwen3_coder"),
    # The next three write calls, but describe no tools.
    "deepseek-ai-DeepSeek-R1-Distill-Llama-8B": ("deepseek_r1", "think", "deepseek_v3"),
    "deepseek-ai-DeepSeek-R1-Distill-Qwen-32B": ("deepseek_r1", "think", "deepseek_v3"),
    "deepseek-ai-DeepSeek-V3.1": ("deepseek_v31", "think", "deepseek_v31"),
    "deepseek-ai-DeepSeek-V3.2": ("deepseek_v32", "think", "deepseek_v32"),
    "deepseek-ai-DeepSeek-V4": ("deepseek_v4", "think", "deepseek_v4"),
    "deepseek-ai-DeepSeek-V4-Flash-0731": ("deepseek_v4", "think", "deepseek_v4"),
    "fireworks-ai-llama-3-firefunction-v2": ("firefunction", None, "phi4_mini_json"),
    "google-gemma-2-2b-it": ("gemma", None, "generic"),
    "google-gemma-4-31B-it": ("gemma4", "gemma4", "gemma4"),
    "google-gemma-4-31B-it-interleaved": ("gemma4", "gemma4", "gemma4"),
    # Asks for `<think>` and `<response>`, where thinking is on and there are no tools.
    "ibm-granite-granite-3.3-2B-Instruct": ("granite", "granite", "granite"),
    "ibm-granite-granite-4.0": ("granite", None, "hermes"),
    "ibm-granite-granite-4.1": ("granite", None, "hermes"),
    "inclusionai-ling-3.0-flash": ("ling", "think", "glm45"),
    "llama-cpp-deepseek-r1": ("deepseek_r1", "think", "deepseek_v3"),
    "llama-cpp-rwkv-world": ("rwkv", "think", "generic"),
    "meetkai-functionary-medium-v3.1": ("functionary", None, "functionary_v31"),
    # `>>>name` and the arguments on the next line; the prompt ends in `>>>`.
    "meetkai-functionary-medium-v3.2": ("functionary", None, None),
    "meta-llama-Llama-3.1-8B-Instruct": ("llama3", None, "llama3_json"),
    "meta-llama-Llama-3.2-3B-Instruct": ("llama3", None, "llama3_json"),
    "meta-llama-Llama-3.3-70B-Instruct": ("llama3", None, "llama3_json"),
    "microsoft-Phi-3.5-mini-instruct": ("phi3", None, "generic"),
    "mistralai-Ministral-3-14B-Reasoning-2512": ("mistral", "mistral", "mistral_v13"),
    "mistralai-Mistral-Nemo-Instruct-2407": ("mistral", None, "mistral"),
    "moonshotai-Kimi-K2": ("kimi_k2", None, "kimi_k2"),
    # Messages to recipients, which no parser reads.
    "muse-glimmer": ("muse", None, None),
    "openai-gpt-oss-120b": ("gpt_oss", "openai", "openai"),
    "openbmb-MiniCPM5-1B": ("minicpm5", "think", "minicpm5"),
    "poolside-Laguna-S-2.1": ("laguna", "think", "glm45"),
    "poolside-Laguna-XS-2.1": ("laguna", "think", "glm45"),
    "poolside-Laguna-XS.2": ("laguna", "think", "glm45"),
    "tencent-Hy3": ("hy3", "hy3", "hy3"),
    "unsloth-Apriel-1.5": ("apriel", "apriel", "apriel"),
    "unsloth-mistral-Devstral-Small-2507": ("mistral", None, "mistral_v13"),
    "upstage-Solar-Open-100B": ("solar", "solar", "solar"),
}
