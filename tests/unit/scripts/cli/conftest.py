# SPDX-License-Identifier: Apache-2.0
"""A frontend on a fake Triton, one for each module of tests."""

from tests.support.running_frontend import running, served

__all__ = ["running", "served"]
