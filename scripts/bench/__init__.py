# SPDX-License-Identifier: Apache-2.0
"""Benchmarks that print ratios: this stack beside `vllm serve`, same build, same engine arguments, same client."""
