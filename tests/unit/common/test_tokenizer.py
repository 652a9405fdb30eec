# SPDX-License-Identifier: Apache-2.0
import copy
import json
from pathlib import Path

import pytest

from common.errors import RequestError
from common.tokenizer import ChatTokenizer

HELLO = [{"role": "user", "content": "你好，你是谁？"}]


@pytest.fixture(scope="module")
def qwen3(qwen3_tokenizer_dir: Path) -> ChatTokenizer:
    return ChatTokenizer.load(qwen3_tokenizer_dir)


@pytest.fixture(scope="module")
def gemma3(gemma3_tokenizer_dir: Path) -> ChatTokenizer:
    return ChatTokenizer.load(gemma3_tokenizer_dir)


def with_template(tokenizer: ChatTokenizer, template: object) -> ChatTokenizer:
    changed = copy.copy(tokenizer._tokenizer)
    changed.chat_template = template
    return ChatTokenizer(changed)


def test_special_tokens_of_a_text(qwen3: ChatTokenizer, gemma3: ChatTokenizer) -> None:
    assert gemma3.encode("hi", add_special_tokens=True) == [2, *gemma3.encode("hi", add_special_tokens=False)]
    assert gemma3.bos_text() == "<bos>"
    assert qwen3.encode("hi", add_special_tokens=True) == qwen3.encode("hi", add_special_tokens=False)
    assert qwen3.bos_text() == ""


def test_special_tokens_in_text_are_recognised(qwen3: ChatTokenizer) -> None:
    assert qwen3.encode("<|im_end|>", add_special_tokens=False) == [qwen3.token_id("<|im_end|>")] == [151645]


def test_render_keeps_cjk_of_tools_readable(qwen3: ChatTokenizer) -> None:
    tool = {"type": "function", "function": {"name": "weather", "description": "查询天气 <b>"}}
    assert '"description": "查询天气 <b>"' in qwen3.render(HELLO, [tool])


def test_the_template_s_own_refusal_reaches_the_client(gemma3: ChatTokenizer) -> None:
    with pytest.raises(RequestError, match="Conversation roles must alternate") as error:
        gemma3.render([*HELLO, *HELLO])
    assert error.value.param == "messages"


def test_a_template_that_fails_is_a_client_error(qwen3: ChatTokenizer) -> None:
    endless = "{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}"
    nested = "{% for a in 'x' %}" * 25 + "{% endfor %}" * 25
    large = "{{ 'x' * 1000000000000000 }}"
    wrong = ("{{ messages[0].content + 1 }}", "{{ messages[0].nothing.at_all }}", "{{ 1 // 0 }}")
    for template in (*wrong, "{{ x", "{{ range(10000000) }}", "{{ ''.__class__.mro() }}", endless, nested, large):
        with pytest.raises(RequestError, match="chat template cannot render") as error:
            qwen3.render(HELLO, template=template)
        assert len(error.value.message) < 400


def test_continuing_a_message_that_the_template_drops_does_not_echo_the_chat(qwen3: ChatTokenizer) -> None:
    chat = [{"role": "user", "content": "secret " * 100}, {"role": "assistant", "content": "So"}]
    with pytest.raises(RequestError, match="does not let the last message be continued") as error:
        qwen3.render(
            chat, template="{{ messages[0].content }}", add_generation_prompt=False, continue_final_message=True
        )
    assert "secret" not in error.value.message


@pytest.mark.parametrize("name", ["chat_template", "tokenize", "tools", "add_generation_prompt", "messages"])
def test_template_variables_cannot_reach_the_renderer(qwen3: ChatTokenizer, name: str) -> None:
    with pytest.raises(RequestError, match=f"cannot set '{name}'") as error:
        qwen3.render(HELLO, template_kwargs={name: "x"})
    assert error.value.param == "chat_template_kwargs"


def test_no_chat_template(qwen3: ChatTokenizer) -> None:
    with pytest.raises(RequestError, match="has no chat template") as error:
        with_template(qwen3, None).render(HELLO)
    assert error.value.param == "messages"


def test_named_templates_mean_the_default_one(qwen3: ChatTokenizer) -> None:
    named = with_template(qwen3, {"default": "D {{ messages[0].content }}", "rag": "R"})
    assert named.render([{"role": "user", "content": "x"}]) == "D x"


def test_a_template_of_the_server_s_own(qwen3_tokenizer_dir: Path, tmp_path: Path) -> None:
    own = ChatTokenizer.load(qwen3_tokenizer_dir, "<{{ messages[0].content }}>")
    assert (own.template, own.replaces_template) == ("<{{ messages[0].content }}>", True)
    assert own.render(HELLO) == "<你好，你是谁？>"
    with pytest.raises(ValueError, match=r"chat template: cannot read '/nowhere\.jinja': No such file"):
        ChatTokenizer.load(qwen3_tokenizer_dir, "/nowhere.jinja")


def test_code_of_a_tokenizer_is_refused_with_advice(tmp_path: Path) -> None:
    """Without transformers' advice to trust it, which would not help."""
    auto_map = {"AutoTokenizer": ["tokenization_own.OwnTokenizer", None]}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"auto_map": auto_map}))
    (tmp_path / "tokenization_own.py").write_text("raise SystemExit('it was run')")
    with pytest.raises(ValueError, match=r"is code in the checkpoint.*put its tokenizer\.json there") as error:
        ChatTokenizer.load(tmp_path)
    assert "trust_remote_code=True" not in str(error.value)


def test_loading_names_the_path(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=str(tmp_path)):
        ChatTokenizer.load(tmp_path)


def test_a_tokenizer_without_rust_backend_is_refused() -> None:
    with pytest.raises(ValueError, match=r"object has no tokenizer\.json backend"):
        ChatTokenizer(object())
