# SPDX-License-Identifier: Apache-2.0
"""The shared library: requests to prompt ids, and generated ids back to answers. Imports nothing of Triton."""
