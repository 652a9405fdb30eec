# SPDX-License-Identifier: Apache-2.0
"""The command line `triton-chat`: the table of commands, and a module for most of them."""
