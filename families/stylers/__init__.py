# SPDX-License-Identifier: Apache-2.0
"""Prompt formatters, one module per model family."""
