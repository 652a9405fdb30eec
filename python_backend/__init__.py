# SPDX-License-Identifier: Apache-2.0
"""What Triton's Python models need of Triton: tensors, metrics, config parameters and the watchdog."""
