# SPDX-License-Identifier: Apache-2.0
"""The tests' own start."""

import gc
from pathlib import Path
from types import SimpleNamespace

import pytest

CONFTEST = Path(__file__).parents[1] / "conftest.py"


@pytest.mark.parametrize(("plugins", "collects"), [({"dsession"}, True), (set(), False)], ids=["controller", "worker"])
def test_the_collector_runs_in_the_controller(
    request: pytest.FixtureRequest, plugins: set[str], collects: bool
) -> None:
    """Elsewhere it starts after the tests are imported."""
    plugin = next(
        one for one in request.config.pluginmanager.get_plugins() if getattr(one, "__file__", "") == str(CONFTEST)
    )
    config = SimpleNamespace(pluginmanager=SimpleNamespace(hasplugin=plugins.__contains__))
    gc.disable()
    try:
        plugin.pytest_sessionstart(SimpleNamespace(config=config))
        assert gc.isenabled() is collects
    finally:
        gc.enable()
