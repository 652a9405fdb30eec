# SPDX-License-Identifier: Apache-2.0
"""Names of Triton's models."""

import pytest

from common.model_names import ENGINE, STEPS, VIT, check_name, owner, role, sibling, step


@pytest.mark.parametrize("served", [None, "qwen3", "qwen2.5-0.5b", "a.b"])
@pytest.mark.parametrize("generation", [1, 2, 13])
def test_a_step_names_its_role_its_owner_and_its_siblings(served: str | None, generation: int) -> None:
    names = {of: step(served, of, generation) for of in STEPS}
    for of, name in names.items():
        assert role(name) == of
        assert owner(name) == served
        assert {other: sibling(name, other) for other in STEPS} == names


def test_one_model_alone_has_plain_names() -> None:
    assert [step(None, of) for of in (ENGINE, VIT)] == ["tensorrt_llm", "vit"]
    assert step("qwen3", ENGINE) == "qwen3.tensorrt_llm"
    assert step("qwen3", ENGINE, 2) == "qwen3.g2.tensorrt_llm"


@pytest.mark.parametrize("name", ["qwen3", "Qwen2.5-0.5B", "a", "x" * 64, "0.5b", "vit-l", "embedding"])
def test_names_that_can_be_used(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "x" * 65,
        "Qwen/Qwen3",
        "..",
        ".a",
        "-a",
        "a b",
        "ä",
        "vit",
        "ensemble",
        "a.tensorrt_llm",
        "a.embedding",
        "a.g2",
    ],
)
def test_names_that_cannot_be_used(name: str) -> None:
    with pytest.raises(ValueError, match="is not a name of a model"):
        check_name(name)
