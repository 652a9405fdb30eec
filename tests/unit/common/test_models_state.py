# SPDX-License-Identifier: Apache-2.0
"""The launcher's state file comes back as it was written, and is never half of one."""

from pathlib import Path

import pytest

from common.models_state import DRAINING, LOADING, READY, ModelState, read_states, write_states
from common.served_model import EMBEDDING, ServedModelInfo

MODELS = {
    "qwen3": ModelState(
        state=READY,
        ensemble="qwen3",
        engine="qwen3.g2.tensorrt_llm",
        info=ServedModelInfo(names=("qwen3", "small"), max_model_len=4096, modalities=("text",)),
    ),
    "bge": ModelState(
        state=LOADING,
        ensemble="bge",
        engine="bge",
        info=ServedModelInfo(names=("bge",), kind=EMBEDDING),
        reason="the model is loading",
        retry_after=12,
    ),
}


def test_states_come_back_as_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / "models.json"
    write_states(path, MODELS)
    assert list(read_states(path).items()) == list(MODELS.items()), "in their order"
    assert [model.ready for model in MODELS.values()] == [True, False]


def test_a_new_file_replaces_the_old_one_and_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "models.json"
    write_states(path, MODELS)
    with path.open(encoding="utf-8") as old:
        draining = ModelState(state=DRAINING, ensemble="bge", engine="bge")
        write_states(path, {"bge": draining})
        assert "qwen3" in old.read(), "who has it open reads the old one to its end"
    assert read_states(path) == {"bge": draining}
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"models": []}',
        '{"models": {"a": {}}}',
        '{"models": {"a": {"state": "asleep", "ensemble": "a", "engine": "a"}}}',
    ],
)
def test_another_file_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "models.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"state|Expecting"):
        read_states(path)


def test_without_a_file(tmp_path: Path) -> None:
    with pytest.raises(OSError):
        read_states(tmp_path / "models.json")
