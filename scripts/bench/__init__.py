# SPDX-License-Identifier: Apache-2.0
"""The benchmark: this stack's endpoints against `vllm serve`, growth of cost and memory, image preparation."""
