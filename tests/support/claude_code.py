# SPDX-License-Identifier: Apache-2.0
"""Requests in the shape of Claude Code's, written from public descriptions: no client of that name runs here."""

from typing import Any

PATH = "/v1/messages?beta=true"
HEADERS = {
    "anthropic-version": "2023-06-01",
    "anthropic-beta": "claude-code-20250219,interleaved-thinking-2025-05-14,context-management-2025-06-27",
    "x-app": "cli",
    "user-agent": "claude-cli/2.1.77 (external, cli)",
}
MARK = {"cache_control": {"type": "ephemeral", "ttl": "1h"}}
USER_ID = "user_0784b2_account_261d5434_session_b4e5aaaa"


def tool(name: str, **properties: str) -> dict[str, Any]:
    """The definition of a tool whose arguments are texts with these descriptions."""
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": {one: {"type": "string", "description": about} for one, about in properties.items()},
        "required": list(properties),
        "additionalProperties": False,
    }
    return {"name": name, "description": f"{name}: does what its name says.\n\nUsage:\n- once", "input_schema": schema}


TOOLS = [
    tool("Bash", command="The command to execute", description="What it does"),
    tool("Read", file_path="The absolute path to the file"),
    tool("Edit", file_path="The file", old_string="The text to replace", new_string="The text to replace it with"),
    *(tool(f"mcp__server__tool_{number}", query="What to look for") for number in range(20)),
]


def billing(number: int) -> dict[str, Any]:
    """The block that differs from request to request."""
    return {
        "type": "text",
        "text": f"x-anthropic-billing-header: cc_version=2.1.77.1; cc_entrypoint=cli; cch={number:05x};",
    }


def system(number: int) -> list[dict[str, Any]]:
    """The system prompt of the request of this number."""
    return [
        billing(number),
        {"type": "text", "text": "You are a coding agent.", **MARK},
        {"type": "text", "text": "# Tone\n\nBe concise.\n\n# Environment\n\nWorking directory: /repo", **MARK},
    ]


def turns(count: int, thinking: bool = True) -> list[dict[str, Any]]:
    """A conversation of so many requests: each calls a tool. The mark of the cache is at the last block only."""
    reminder = "<system-reminder>\nThe user opened a file.\n</system-reminder>"
    first = [{"type": "text", "text": reminder}, {"type": "text", "text": "Fix the failing test."}]
    messages: list[dict[str, Any]] = [{"role": "user", "content": first}]
    for number in range(1, count):
        call = {
            "type": "tool_use",
            "id": f"toolu_{number}",
            "name": "Read",
            "input": {"file_path": f"/repo/{number}.py"},
        }
        thought = {"type": "thinking", "thinking": f"I should read file {number}.", "signature": "EqQBCg=="}
        said = {"type": "text", "text": f"I read file {number}."}
        messages.append({"role": "assistant", "content": [*([thought] if thinking else []), said, call]})
        result = {"type": "tool_result", "tool_use_id": f"toolu_{number}", "content": f"     1\tprint({number})"}
        messages.append({"role": "user", "content": [result]})
    messages[-1]["content"] = [*messages[-1]["content"][:-1], messages[-1]["content"][-1] | MARK]
    return messages


def request(count: int = 1, **fields: Any) -> dict[str, Any]:
    """The body of the request of this number in a conversation."""
    return {
        "model": "model",
        "messages": turns(count),
        "system": system(count),
        "tools": TOOLS,
        "metadata": {"user_id": USER_ID},
        "max_tokens": 32000,
        "thinking": {"type": "enabled", "budget_tokens": 31999},
        "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
        "output_config": {"effort": "medium"},
        "stream": True,
        **fields,
    }
