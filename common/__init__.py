# SPDX-License-Identifier: Apache-2.0
"""The ground floor, which all other packages share: errors, checks, checkpoints, tokenizers, options, log formats."""
