# SPDX-License-Identifier: Apache-2.0
import pytest

from common.errors import RequestError
from preprocessing.engine_traits import engine_traits
from preprocessing.guides.build import GUIDE_TYPES


def test_a_python_engine_can_do_everything() -> None:
    traits = engine_traits("vllm", guided_decoding=False)
    assert traits == engine_traits(None, guided_decoding=False) and traits.reports_finish
    for guide_type in (None, *GUIDE_TYPES):
        traits.check(guide_type, engine_images=True)


def test_older_engines_know_arguments_as_json_only() -> None:
    assert engine_traits("vllm", guided_decoding=False).call_styles
    assert not any(engine_traits(name, guided_decoding=True).call_styles for name in ("llmapi", "trtllm"))


def test_the_c_backend_refuses_what_it_would_ignore() -> None:
    without, with_guides = (engine_traits("trtllm", guided_decoding=guided) for guided in (False, True))
    assert not without.reports_finish
    without.check(None, engine_images=False)
    for guide_type in GUIDE_TYPES:
        with pytest.raises(RequestError, match=f"'{guide_type}'"):
            without.check(guide_type, engine_images=False)
    with_guides.check("json_schema", engine_images=False)
    with pytest.raises(RequestError, match=r"'structural_tag'.*json_schema"):
        with_guides.check("structural_tag", engine_images=False)
    with pytest.raises(RequestError, match="no images") as refused:
        with_guides.check(None, engine_images=True)
    assert refused.value.param == "messages"
