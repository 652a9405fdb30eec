# SPDX-License-Identifier: Apache-2.0
"""The life of a request: admission, generation, cancellation, and streaming to the client."""
