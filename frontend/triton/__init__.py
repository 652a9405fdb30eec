# SPDX-License-Identifier: Apache-2.0
"""The gRPC side: Triton's models, tensors and streams."""
