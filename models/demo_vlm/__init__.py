# SPDX-License-Identifier: Apache-2.0
"""A small vision-language demo model for the CPU.

scripts/prepare/demo_vlm.py builds the served folder from `weights.safetensors` with three modules: `layout` (sizes,
tokens, vision config), `naming` (names of tensors and tokens) and `adapter` (merging into the language model).
`training/` is only needed to train and evaluate the model.
"""
