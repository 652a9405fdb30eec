# SPDX-License-Identifier: Apache-2.0
"""The command line `triton-chat`: one module per command."""
