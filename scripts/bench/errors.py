# SPDX-License-Identifier: Apache-2.0
"""What cannot be measured."""


class Refused(Exception):
    """Why a benchmark cannot be run as asked, in words for the person at the terminal."""
