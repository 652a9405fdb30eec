# SPDX-License-Identifier: Apache-2.0
"""Mixed load whose every answer is known beforehand, while processes are killed, stopped and starved at random."""
