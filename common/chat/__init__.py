# SPDX-License-Identifier: Apache-2.0
"""A chat request: messages, tools and media parts, validated and normalised."""
