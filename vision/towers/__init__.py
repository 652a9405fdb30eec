# SPDX-License-Identifier: Apache-2.0
"""Vision towers in torch, one module per architecture."""
