# SPDX-License-Identifier: Apache-2.0
"""Engines behind the Triton model `tensorrt_llm`: the `Engine` protocol, its tensors, and one package per engine."""
