# SPDX-License-Identifier: Apache-2.0
"""ChatML as a Jinja template, for checkpoints whose own template is missing or unsuitable."""

TURN_END = "<|im_end|>"

# `default_system`: the system prompt of a chat without one, set by the styler.
TEMPLATE = """\
{%- if default_system is defined and messages[0].role != 'system' %}
    {{- '<|im_start|>system\\n' + default_system + '<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""
