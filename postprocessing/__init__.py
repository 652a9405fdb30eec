# SPDX-License-Identifier: Apache-2.0
"""From generated ids to text, reasoning, tool calls, log-probabilities and a finish reason."""
