# SPDX-License-Identifier: Apache-2.0
"""The request bodies of the OpenAI API, and their validation."""
