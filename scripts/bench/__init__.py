# SPDX-License-Identifier: Apache-2.0
"""The benchmark: this stack at its taps beside `vllm serve`, with one client; growth; preparing images."""
