# SPDX-License-Identifier: Apache-2.0
import gc

import pytest

from python_backend.imports import quick_imports


def test_what_is_imported_is_left_to_the_collector_no_more() -> None:
    with quick_imports():
        assert not gc.isenabled()
        imported: list[object] = [[]]
    assert gc.isenabled()
    assert all(known is not imported for known in gc.get_objects())


def test_a_failed_import_leaves_the_collector_on() -> None:
    with pytest.raises(ImportError), quick_imports():
        raise ImportError
    assert gc.isenabled()
