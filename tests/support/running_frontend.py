# SPDX-License-Identifier: Apache-2.0
"""A frontend on a fake Triton, one for each module of tests."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.fakes.frontend_server import Serving, serving


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(request: pytest.FixtureRequest) -> AsyncIterator[Serving]:
    """A running frontend. A module chooses its settings by a dict SETTINGS."""
    async with serving(**getattr(request.module, "SETTINGS", {})) as one:
        yield one


@pytest.fixture
def served(running: Serving) -> Serving:
    """The frontend, as if it had just been started."""
    running.reset()
    return running
