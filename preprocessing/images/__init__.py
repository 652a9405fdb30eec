# SPDX-License-Identifier: Apache-2.0
"""Images and videos of a request: decoding, tiling, and their tokens in the prompt."""
