# SPDX-License-Identifier: Apache-2.0
"""Model families, in both directions: how a prompt is written and how an answer is read."""
