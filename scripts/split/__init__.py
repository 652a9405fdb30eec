# SPDX-License-Identifier: Apache-2.0
"""Split a vision-language checkpoint into a plain causal-LM checkpoint and, in `vision/`, the vision part.

Nothing is imported here: most of the modules need torch.
"""
