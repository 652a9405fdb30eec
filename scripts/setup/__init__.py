# SPDX-License-Identifier: Apache-2.0
"""Set-up steps of the Makefile: packages, tritonserver, tokenizers and system packages."""
