# SPDX-License-Identifier: Apache-2.0
"""Fetching of images and videos from data:, http(s): and file: URLs, within limits."""

from frontend.images.fetcher import ImageFetcher

__all__ = ["ImageFetcher"]
