# SPDX-License-Identifier: Apache-2.0
"""The gRPC client of Triton: models, tensors and the stream."""
