# SPDX-License-Identifier: Apache-2.0
"""Vision towers behind the Triton model `vit`: image tiles to prompt embeddings."""
