# SPDX-License-Identifier: Apache-2.0
"""Images and videos by URL: data:, http(s): and file:, each within its limits."""

from frontend.images.fetcher import ImageFetcher

__all__ = ["ImageFetcher"]
