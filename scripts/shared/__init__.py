# SPDX-License-Identifier: Apache-2.0
"""What several rooms of `scripts` need: findings, errors, weight files, an engine's manifest, NVIDIA's tools."""
