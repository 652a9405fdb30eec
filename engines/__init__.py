# SPDX-License-Identifier: Apache-2.0
"""The library of the Triton model `tensorrt_llm`: the service, the `Engine` protocol and one package per engine."""
