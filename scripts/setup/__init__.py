# SPDX-License-Identifier: Apache-2.0
"""Steps of `make setup`: packages, tritonserver, tokenizers and system packages."""
