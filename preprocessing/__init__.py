# SPDX-License-Identifier: Apache-2.0
"""What the model `preprocessing` runs: requests to prompt ids, guides and image tiles.

`preprocessor`, `tensors` and `announcement` adapt it to Triton; the other modules can be used without Triton.
"""
