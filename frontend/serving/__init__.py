# SPDX-License-Identifier: Apache-2.0
"""One request's life: admission, generation, cancellation and streaming to the client."""
