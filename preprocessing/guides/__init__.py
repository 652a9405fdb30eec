# SPDX-License-Identifier: Apache-2.0
"""Guided decoding: from response formats and tools to the engine's guides."""
