# SPDX-License-Identifier: Apache-2.0
"""The routes: each translates one OpenAI endpoint to ensemble requests and back."""
