# SPDX-License-Identifier: Apache-2.0
"""Shared by several packages of `scripts`: findings, errors, weight files, an engine's manifest, NVIDIA's tools."""
