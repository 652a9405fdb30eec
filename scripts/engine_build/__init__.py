# SPDX-License-Identifier: Apache-2.0
"""From a Hugging Face checkpoint to a TensorRT-LLM engine, by NVIDIA's own tools (docs/engines.md)."""
