# SPDX-License-Identifier: Apache-2.0
"""Which family a chat template belongs to, and how that family writes reasoning and tool calls: one ordered table."""

from dataclasses import dataclass
from functools import lru_cache


@dataclass(frozen=True, slots=True)
class Rule:
    """What a chat template says about a family.

    texts: all of them are in the template. without: none of them is.
    family, reasoning (a key of REASONING_FORMATS), tools (a key of TOOL_FORMATS): what follows; None says nothing, so
    that a later rule decides.
    """

    family: str | None = None
    texts: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    reasoning: str | None = None
    tools: str | None = None

    def fits(self, template: str) -> bool:
        """Whether a template fulfils all conditions."""
        return all(text in template for text in self.texts) and not any(text in template for text in self.without)


# The first rule that fits decides each of family, reasoning and tools.
RULES: tuple[Rule, ...] = (
    Rule("gpt_oss", ("<|channel|>", "<|message|>"), reasoning="openai", tools="openai"),
    Rule("kimi_k3", ("<|open|>", "'call'", "'think'"), reasoning="kimi_k3", tools="kimi_k3"),
    Rule("minimax_m3", ("]<]minimax[>[",), reasoning="minimax_m3", tools="minimax_m3"),
    Rule("minimax_m2", ("<minimax:tool_call>",), reasoning="think", tools="minimax_m2"),
    # It reasons without being asked by the template; MiMo too.
    Rule("minimax_m1", ("<beginning_of_sentence>", "<tool_calls>"), reasoning="think", tools="minimax_m1"),
    Rule("mimo", ("You are MiMo",), reasoning="think"),
    Rule("bielik", ("<|function_list|>",)),
    Rule("smollm3", ("named SmolLM", "enable_thinking")),
    Rule("smollm2", ("named SmolLM",)),
    Rule("reka", ("REKA",)),
    Rule("spark", ("<|System|>",)),
    Rule("ling", ("Bailing",)),
    Rule("apertus", ("<|tools_prefix|>",)),
    Rule("firefunction", ("functools[",), tools="phi4_mini_json"),
    Rule("muse", ("<atem:function_calls>",)),
    Rule("deepseek_v32", ("DSML", "function_calls>"), reasoning="think", tools="deepseek_v32"),
    Rule("deepseek_v4", ("DSML", "tool_calls>"), reasoning="think", tools="deepseek_v4"),
    Rule("deepseek_v31", ("<｜tool▁call▁begin｜>", "thinking"), ("```json",), reasoning="think", tools="deepseek_v31"),
    Rule("deepseek_r1", ("<｜tool▁call▁begin｜>", "</think>"), reasoning="think", tools="deepseek_v3"),
    Rule("deepseek_v3", ("<｜tool▁call▁begin｜>",), tools="deepseek_v3"),
    Rule("hy3", ("<tool_sep{}>", ":opensource"), reasoning="hy3", tools="hy3"),
    Rule("seed_oss", ("<seed:tool_call>",), reasoning="seed", tools="seed_oss"),
    Rule("gemma4", ("<|tool_call>call:", "<|channel>"), reasoning="gemma4", tools="gemma4"),
    Rule("kimi_k2", ("<|tool_calls_section_begin|>",), tools="kimi_k2"),
    Rule("solar", ("<|tool_call:begin|>",), reasoning="solar", tools="solar"),
    Rule("cohere", ("<|START_ACTION|>",), reasoning="cohere", tools="cohere_command"),
    Rule("nemotron", ("<TOOLCALL>",), tools="nemotron_json"),
    Rule("mistral", ("[TOOL_CALLS]", "[CALL_ID]"), tools="mistral_v11"),
    Rule("mistral", ("[TOOL_CALLS]", "[ARGS]"), tools="mistral_v13"),
    Rule("mistral", ("[TOOL_CALLS]",), tools="mistral"),
    Rule("mistral", ("[THINK]",), reasoning="mistral"),
    Rule("laguna", ("<arg_key>", "<available_tools>"), tools="glm45"),
    Rule("glm", ("<arg_key>", "[gMASK]"), tools="glm45"),
    Rule(None, ("<arg_key>",), tools="glm45"),
    Rule("minicpm5", ('<function name="', '<param name="'), tools="minicpm5"),
    Rule("nemotron", ("<function=", "truncate_history_thinking")),
    Rule("step3.5", ("<function=", "multi_step_tool"), ("do_vision_count",)),
    Rule("qwen3.5", ("<function=", "do_vision_count")),
    Rule("qwen3_coder", ("<function=", "<parameter=", "<tool_call>"), tools="qwen3_coder"),
    Rule("functionary", ("<function=",), ("<tool_call>",), tools="functionary_v31"),
    Rule("apriel", ("[BEGIN FINAL RESPONSE]",), reasoning="apriel"),
    Rule("apriel", ("<tool_calls>[", "[BEGIN FINAL RESPONSE]"), tools="apriel"),
    Rule("hunyuan", ("<answer>", "</think>"), reasoning="hunyuan"),
    Rule(None, ("<tool_calls>",), tools="hunyuan_a13b"),
    Rule("gigachat3", ("role_sep", "function call"), tools="gigachat3"),
    Rule("minicpm3", ("<|tool_call_start|>", "<|thought_start|>")),
    Rule("lfm2", ("<|tool_call_start|>",), ("<|thought_start|>",), tools="lfm2"),
    Rule("lfm2", ("<|tool_list_start|>",), tools="lfm2"),
    Rule("lfm2", ("List of tools: [",), tools="lfm2"),
    Rule("olmo3", ("<function_calls>",), tools="olmo3"),
    Rule("granite", ("<|tool_call|>", "<|start_of_role|>"), tools="granite"),
    Rule("phi4_mini", ("<|tool|>", "<|/tool|>"), tools="phi4_mini_json"),
    Rule("granite", ("<think>", "<response>"), reasoning="granite"),
    Rule(None, ("<tool_call>",), ("<arg_key>", "<function=", "<invoke", "<param", "<use_mcp_tool>"), tools="hermes"),
    Rule("llama4", ("<|header_start|>",), tools="pythonic"),
    Rule("functionary", (">>>${recipient}",)),
    Rule("command_r", ("<|START_OF_TURN_TOKEN|>",)),
    Rule("hermes", ("json_to_python_type",)),
    Rule("llama3", ("<|start_header_id|>", '"parameters"'), tools="llama3_json"),
    Rule("granite", ("<|start_of_role|>",)),
    Rule("qwen3", ("<|im_start|>", "enable_thinking")),
    Rule("qwen2.5", ("<|im_start|>", "You are Qwen")),
    Rule("llama3", ("<|start_header_id|>",)),
    Rule("gemma", ("<start_of_turn>",)),
    Rule("phi3", ("<|user|>", "<|end|>")),
    Rule("rwkv", ("'User: '",)),
    Rule("chatml", ("<|im_start|>",)),
    Rule(None, ("</think>",), reasoning="think"),
)


@dataclass(frozen=True, slots=True)
class Formats:
    """What the rules say of a template; None is not known."""

    family: str | None
    reasoning: str | None
    tools: str | None


@lru_cache(maxsize=64)
def detect_formats(template: str) -> Formats:
    """The family of a chat template, and how it writes reasoning and tool calls."""
    fitting = [rule for rule in RULES if rule.fits(template)]
    return Formats(
        next((rule.family for rule in fitting if rule.family), None),
        next((rule.reasoning for rule in fitting if rule.reasoning), None),
        next((rule.tools for rule in fitting if rule.tools), None),
    )
