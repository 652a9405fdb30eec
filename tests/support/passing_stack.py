# SPDX-License-Identifier: Apache-2.0
"""A stack whose end is of no interest."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from scripts.launcher import Stack


@contextmanager
def passing_stack(arguments: Sequence[str], environment: Mapping[str, str] | None = None) -> Iterator[Stack]:
    """Start a stack and kill it at the end: an orderly end with vLLM takes 5 to 10 seconds.

    The default model's stack (conftest.py) and those with scripts end in order.
    """
    with Stack(arguments, environment=environment) as stack:
        yield stack
        stack.hurry.set()
