# SPDX-License-Identifier: Apache-2.0
"""Processes that do not outlive the one that started them."""

import ctypes

_PR_SET_PDEATHSIG = 1
# Loaded now, because a process between fork and exec should load nothing.
_libc = ctypes.CDLL(None)


def signal_when_parent_ends(number: int) -> None:
    """Ask the kernel for this signal when the parent of this process ends, even by kill -9.

    The kernel means the thread that started this process.
    """
    _libc.prctl(_PR_SET_PDEATHSIG, number)
