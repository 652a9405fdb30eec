# SPDX-License-Identifier: Apache-2.0
"""The HTTP endpoints: each module maps one OpenAI endpoint to ensemble requests and their deltas to its answer."""
