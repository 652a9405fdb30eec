# SPDX-License-Identifier: Apache-2.0
"""What the OpenAI API lets a client send; the values are validated here and nowhere else."""
