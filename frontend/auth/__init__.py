# SPDX-License-Identifier: Apache-2.0
"""API keys, quotas and the gate that checks them."""
