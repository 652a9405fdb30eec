# SPDX-License-Identifier: Apache-2.0
"""TensorRT-LLM's LLM API as an engine."""
