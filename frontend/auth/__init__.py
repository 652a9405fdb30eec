# SPDX-License-Identifier: Apache-2.0
"""API keys, their quotas, and the middleware that checks them."""
