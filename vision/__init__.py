# SPDX-License-Identifier: Apache-2.0
"""What the Triton model `vit` runs: a vision tower that turns image tiles into prompt embeddings."""
