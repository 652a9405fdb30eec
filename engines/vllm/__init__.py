# SPDX-License-Identifier: Apache-2.0
"""vLLM as an engine."""
