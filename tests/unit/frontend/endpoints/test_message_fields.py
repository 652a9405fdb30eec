# SPDX-License-Identifier: Apache-2.0
"""Every kind of block in the request types of the installed Anthropic client, and its fields: read, ignored or refused.

Those of the body itself are in test_fields. A newer client with a new one fails these tests until someone decides.
"""

from collections.abc import Iterator
from typing import Any, get_args

import anthropic.types as stable
import anthropic.types.beta as beta
from typing_extensions import get_type_hints, is_typeddict

from frontend.endpoints.messages_input import BLOCKS, CONVERTED, RESULT_BLOCKS, SAME, THINKING
from tests.support.doc_blocks import codes, rows, section

# Of each object: the fields that are read, and those without an effect. All others that it has are refused by name, if
# they ask for something.
READ = {
    "text": {"text"},
    "image": {"source", "transformations"},
    "document": {"source", "title", "context"},
    "search_result": {"source", "title", "content"},
    "tool_use": {"id", "name", "input"},
    "tool_result": {"tool_use_id", "content", "is_error"},
    "tool_reference": {"tool_name"},
    "thinking": {"thinking"},
    "redacted_thinking": set(),
}
UNREAD = {
    "text": {"citations"},  # those of an earlier answer
    "redacted_thinking": {"data"},
    "thinking": {"signature"},
    "tool_use": {"caller", "toolset_name"},
    "tool_result": {"toolset_name"},
}
REFUSED_IF_SET = {"document": {"citations"}, "search_result": {"citations"}}
REFUSED_BLOCKS = {
    *("server_tool_use", "web_search_tool_result", "web_fetch_tool_result", "code_execution_tool_result"),
    *("bash_code_execution_tool_result", "text_editor_code_execution_tool_result", "tool_search_tool_result"),
    *("container_upload", "browser_state"),
    # Only in the beta API.
    *("advisor_tool_result", "compaction", "fallback", "mcp_tool_result", "mcp_tool_use"),
    *("mcp_tool_listing", "tool_addition", "tool_removal"),
}
OBJECTS = {
    "ToolParam": {
        *("name", "description", "input_schema", "type", "strict", "input_examples", "allowed_callers"),
        *("cache_control", "defer_loading", "eager_input_streaming"),  # no effect
    },
    "ToolChoiceAutoParam": {"type", "disable_parallel_tool_use"},
    "ToolChoiceAnyParam": {"type", "disable_parallel_tool_use"},
    "ToolChoiceToolParam": {"type", "disable_parallel_tool_use", "name"},
    "ToolChoiceNoneParam": {"type"},
    "ThinkingConfigEnabledParam": {"type", "budget_tokens", "display", "block_binding"},
    "ThinkingConfigAdaptiveParam": {"type", "display", "block_binding"},
    "ThinkingConfigDisabledParam": {"type"},
    "OutputConfigParam": {"effort", "format", "task_budget"},
    "JSONOutputFormatParam": {"type", "schema"},
    "ImageTransformationsParam": {"oversized_image"},
    "Base64ImageSourceParam": {"type", "media_type", "data"},
    "URLImageSourceParam": {"type", "url"},
    "PlainTextSourceParam": {"type", "media_type", "data"},
    "ContentBlockSourceParam": {"type", "content"},
    "UserMessageParam": {"role", "content"},
    "AssistantMessageParam": {"role", "content"},
    "SystemMessageParam": {"role", "content", "clear_at", "output_config"},
}


def typed_dicts(kind: Any) -> Iterator[Any]:
    """The typed dictionaries in an annotation, not those in their fields."""
    if is_typeddict(kind):
        yield kind
    else:
        for part in get_args(kind):
            yield from typed_dicts(part)


def blocks() -> Iterator[Any]:
    for module, prefix in ((stable, ""), (beta, "Beta")):
        yield from typed_dicts(getattr(module, f"{prefix}ContentBlockParam"))
        result = getattr(module, f"{prefix}ToolResultBlockParam")
        yield from typed_dicts(get_type_hints(result)["content"])


def test_every_kind_of_block_and_every_field_of_one() -> None:
    supported = {kind for kinds in (*BLOCKS.values(), RESULT_BLOCKS) for kind in kinds}
    assert supported == set(READ)
    for block in blocks():
        hints = get_type_hints(block)
        for kind in get_args(hints["type"]):
            assert kind in supported | REFUSED_BLOCKS, block
            if kind in supported:
                known = READ[kind] | UNREAD.get(kind, set()) | REFUSED_IF_SET.get(kind, set())
                assert set(hints) - {"type", "cache_control"} <= known, block


def test_every_field_of_the_other_objects() -> None:
    for name, fields in OBJECTS.items():
        for kind in (getattr(stable, name), getattr(beta, f"Beta{name}", None)):
            if kind is not None:
                assert set(get_type_hints(kind)) <= fields, kind


def test_every_kind_of_thinking() -> None:
    kinds = {kind for one in typed_dicts(stable.ThinkingConfigParam) for kind in get_args(get_type_hints(one)["type"])}
    assert kinds == {*THINKING, "between_tools"}  # which is refused


def test_the_documentation() -> None:
    text = section("api.md", "Messages")
    fields, kinds = ({code for cells in table for code in codes(cells[0])} for table in tables(text))
    own = set(SAME) - {"model", "stream", "max_tokens", "temperature", "top_p", "top_k"}
    assert fields == {*SAME, *CONVERTED} - own
    assert kinds == set(READ)
    assert set(codes(text.partition("these fields of a chat:")[2].partition("\n\n")[0])) == own


def tables(text: str) -> Iterator[list[list[str]]]:
    first, _, second = text.partition("| block |")
    yield rows(first)
    yield rows("| block |" + second)
