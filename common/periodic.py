# SPDX-License-Identifier: Apache-2.0
"""Jobs that run again and again, one failure of which must not end them."""

import logging
from collections.abc import Callable


class PeriodicJob:
    """Call a job; log its failure instead of raising it. Of failures in a row only the first is logged."""

    def __init__(self, job: Callable[[], object], log: logging.Logger) -> None:
        self._job, self._log = job, log
        self._failed = False

    def __call__(self) -> None:
        """Run the job once."""
        try:
            self._job()
        except Exception:
            if not self._failed:
                self._log.exception("a periodic job failed; it will be tried again")
            self._failed = True
        else:
            self._failed = False
