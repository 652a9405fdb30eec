# SPDX-License-Identifier: Apache-2.0
"""Runtimes of vision towers: torch, ONNX Runtime and TensorRT."""
