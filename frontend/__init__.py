# SPDX-License-Identifier: Apache-2.0
"""The OpenAI API in front of Triton: requests to ensemble tensors, ensemble responses to answers."""

__version__ = "0.1.0"
