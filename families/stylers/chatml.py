# SPDX-License-Identifier: Apache-2.0
"""ChatML as a Jinja template, for checkpoints that have none of their own or whose own is not to be used."""

TURN_END = "<|im_end|>"

# `default_system` is the styler's: the system prompt of a chat that has none.
TEMPLATE = """\
{%- if default_system is defined and messages[0].role != 'system' %}
    {{- '<|im_start|>system\\n' + default_system + '<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if message.role == 'tool' or message.tool_calls %}
        {{- raise_exception('the served model has no format for tool calls') }}
    {%- endif %}
    {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""
