# SPDX-License-Identifier: Apache-2.0
"""What every part of the pipeline shares: errors, checks, checkpoints, tokenizers, answer options, log formats."""
