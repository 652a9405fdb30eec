# SPDX-License-Identifier: Apache-2.0
"""Build TensorRT-LLM engines from Hugging Face checkpoints with NVIDIA's own tools (docs/engines.md)."""
