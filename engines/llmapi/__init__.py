# SPDX-License-Identifier: Apache-2.0
"""The engine TensorRT-LLM through its Python LLM API."""
