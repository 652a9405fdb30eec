# SPDX-License-Identifier: Apache-2.0
"""Prepare the models that packages ship: SmolLM2 and the demo vision-language model."""
