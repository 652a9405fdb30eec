# SPDX-License-Identifier: Apache-2.0
"""The OpenAI API in front of Triton: converts requests to ensemble tensors, and ensemble responses to answers."""

__version__ = "0.2.0"
