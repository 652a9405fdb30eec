# SPDX-License-Identifier: Apache-2.0
"""What the model `postprocessing` runs: generated ids to text, reasoning, tool calls, log-probabilities, finish reason.

`postprocessor`, `tensors` and `engine` adapt it to Triton; the other modules can be used without Triton.
"""
