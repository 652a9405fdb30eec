# SPDX-License-Identifier: Apache-2.0
import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Regex, Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel, Sequence, Split
from tokenizers.trainers import BpeTrainer
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from common.checkpoint import Checkpoint
from common.errors import RequestError
from common.tokenizer import ChatTokenizer
from families.detection import find_styler
from preprocessing.prompt import EngineInput, PromptBuilder, PromptRequest
from tests.support.chats import with_template

MAX_MODEL_LEN = 64
IM_END, ENDOFTEXT = 151645, 151643
HELLO = [{"role": "user", "content": "你好，你是谁？"}]


def chat(messages: Any = HELLO, **fields: Any) -> str:
    return json.dumps({"messages": messages, **fields})


def qwen3_checkpoint(*end_ids: int) -> Checkpoint:
    return Checkpoint(Path(), "qwen3", ("Qwen3ForCausalLM",), 151936, 40960, end_ids, ENDOFTEXT)


@pytest.fixture(scope="module")
def qwen3_tokenizer(qwen3_tokenizer_dir: Path) -> ChatTokenizer:
    return ChatTokenizer.load(qwen3_tokenizer_dir)


@pytest.fixture(scope="module")
def qwen3(qwen3_tokenizer: ChatTokenizer) -> PromptBuilder:
    checkpoint = qwen3_checkpoint(IM_END, ENDOFTEXT)
    return PromptBuilder(checkpoint, qwen3_tokenizer, find_styler(checkpoint), MAX_MODEL_LEN)


@pytest.fixture(scope="module")
def gemma3(gemma3_tokenizer_dir: Path) -> PromptBuilder:
    checkpoint = Checkpoint(Path(), "gemma3_text", (), 262208, 32768, (1,), 0)
    return PromptBuilder(checkpoint, ChatTokenizer.load(gemma3_tokenizer_dir), find_styler(checkpoint))


@pytest.fixture(scope="module")
def grouping() -> PromptBuilder:
    """Of a tokenizer that groups digits by three from the left, as Llama 3 does."""
    tokenizer = Tokenizer(BPE())
    split = Split(Regex(r"\p{N}{1,3}|\p{L}+|[^\p{N}\p{L}]+"), "isolated")
    tokenizer.pre_tokenizer = Sequence([split, ByteLevel(add_prefix_space=False, use_regex=False)])
    trainer = BpeTrainer(initial_alphabet=ByteLevel.alphabet(), vocab_size=4000, show_progress=False)
    numbers = [f"{number:0{width}}" for width in (1, 2, 3) for number in range(10**width)]
    tokenizer.train_from_iterator([*numbers * 3, "abababab " * 9], trainer)
    checkpoint = Checkpoint(Path(), "llama", (), 4000, MAX_MODEL_LEN, (1,), 0)
    chat_tokenizer = ChatTokenizer(PreTrainedTokenizerFast(tokenizer_object=tokenizer), "{{ messages }}")
    return PromptBuilder(checkpoint, chat_tokenizer, find_styler(checkpoint), MAX_MODEL_LEN)


def refused(builder: PromptBuilder, **fields: Any) -> RequestError:
    with pytest.raises(RequestError) as error:
        builder.build(PromptRequest(**fields))
    return error.value


def test_a_chat(qwen3: PromptBuilder) -> None:
    built = qwen3.build(PromptRequest(messages=chat()))
    assert built == EngineInput(
        input_ids=built.input_ids,
        request_output_len=MAX_MODEL_LEN - 13,
        end_id=IM_END,
        pad_id=ENDOFTEXT,
        stop_words=[[ENDOFTEXT]],
        bad_words=[],
        embedding_bias={},
        guide_type=None,
        guide=None,
        reasoning_open=False,
    )
    assert qwen3.tokenizer.backend.decode(built.input_ids, skip_special_tokens=False) == (
        "<|im_start|>user\n你好，你是谁？<|im_end|>\n<|im_start|>assistant\n"
    )


def test_prompt_tokens_of_the_published_dialogues(qwen3: PromptBuilder, gemma3: PromptBuilder) -> None:
    assert len(qwen3.build(PromptRequest(messages=chat())).input_ids) == 13
    assert len(qwen3.build(PromptRequest(messages=chat(enable_thinking=False))).input_ids) == 17
    assert len(gemma3.build(PromptRequest(messages=chat())).input_ids) == 14


def test_the_prompt_says_whether_the_answer_starts_in_reasoning(qwen3_tokenizer: ChatTokenizer) -> None:
    """A model whose switch has another name, and is off by default."""
    template = "{{ messages[0].content }}{{ '<think>' if thinking else '</think>' }}"
    checkpoint = qwen3_checkpoint(IM_END)
    builder = PromptBuilder(checkpoint, with_template(qwen3_tokenizer, template), find_styler(checkpoint))
    assert (builder.answer_format.reasoning_starts_open, builder.answer_format.thinking_default) == (True, False)
    for fields, starts in (
        ({}, False),
        ({"enable_thinking": True}, True),
        ({"reasoning_effort": "low"}, True),
        ({"chat_template_kwargs": {"thinking": True}}, True),
        ({"chat_template_kwargs": {"thinking": False}, "enable_thinking": True}, False),
    ):
        built = builder.build(PromptRequest(messages=chat(**fields, response_format={"type": "json_object"})))
        assert built.reasoning_open is starts
        assert built.guide_type == ("structural_tag" if starts else "json")


def test_one_bos_for_chat_and_text(gemma3: PromptBuilder) -> None:
    for request in (PromptRequest(messages=chat()), PromptRequest(text="hi")):
        built = gemma3.build(request)
        assert built.input_ids[0] == 2
        assert built.input_ids.count(2) == 1


def test_text_and_ids(qwen3: PromptBuilder) -> None:
    assert qwen3.build(PromptRequest(text="Hello")).input_ids == [9707]
    assert qwen3.build(PromptRequest(input_ids=(9707, 0))).input_ids == [9707, 0]


@pytest.mark.parametrize(
    "fields", [{}, {"text": "a", "messages": chat()}, {"text": "", "input_ids": (1,)}, {"messages": "", "text": ""}]
)
def test_exactly_one_prompt(qwen3: PromptBuilder, fields: dict[str, Any]) -> None:
    assert "exactly one of" in refused(qwen3, **fields).message


@pytest.mark.parametrize("fields", [{"text": ""}, {"input_ids": ()}])
def test_an_empty_prompt(qwen3: PromptBuilder, fields: dict[str, Any]) -> None:
    error = refused(qwen3, **fields)
    assert (error.message, error.param) == ("the prompt is empty", "prompt")


def test_images_need_a_model_that_takes_them(qwen3: PromptBuilder) -> None:
    error = refused(qwen3, messages=chat(), images=(b"png",))
    assert (error.message, error.param) == ("the served model takes no images", "messages")


@pytest.fixture(scope="module")
def trusting(qwen3_tokenizer: ChatTokenizer) -> PromptBuilder:
    checkpoint = qwen3_checkpoint(IM_END)
    return PromptBuilder(checkpoint, qwen3_tokenizer, find_styler(checkpoint), 4096, trust_chat_template=True)


class TestTemplateOfTheRequest:
    TEMPLATE = "<|im_start|>{% for m in messages %}[{{ m.content }}]{% endfor %}{{ tools | length }}<think>"

    def test_only_of_trusted_clients(self, qwen3: PromptBuilder) -> None:
        error = refused(qwen3, messages=chat(chat_template=self.TEMPLATE))
        assert (error.kind, error.param) == ("invalid_request", "chat_template")
        assert "--trust-request-chat-template" in error.message

    def test_the_prompt_and_its_markup(self, trusting: PromptBuilder) -> None:
        """The template's tokens are tokens, those that a message spells are text; the answer's format stays."""
        tools = [{"type": "function", "function": {"name": "f"}}]
        messages = [{"role": "user", "content": "<|im_end|>"}]
        built = trusting.build(PromptRequest(messages=chat(messages, tools=tools, chat_template=self.TEMPLATE)))
        text = trusting.tokenizer.backend.decode(built.input_ids, skip_special_tokens=False)
        assert text == "<|im_start|>[<|im_end|>]1<think>"
        assert built.input_ids[0] == IM_END - 1 and IM_END not in built.input_ids
        assert built.reasoning_open is True

    @pytest.mark.parametrize(
        ("template", "message"),
        [
            ("{{ raise_exception('Not so.') }}", "refuses this chat: Not so."),
            ("{{ messages[0].nothing.at_all }}", "cannot render"),
            ("{% if %}", "cannot render"),
        ],
    )
    def test_its_errors_are_the_client_s(self, trusting: PromptBuilder, template: str, message: str) -> None:
        error = refused(trusting, messages=chat(chat_template=template))
        assert (error.kind, error.param) == ("invalid_request", "chat_template")
        assert message in error.message

    def test_other_errors_keep_their_field(self, trusting: PromptBuilder) -> None:
        fields = {"chat_template": "x", "chat_template_kwargs": {"chat_template": "y"}}
        assert refused(trusting, messages=chat(**fields)).param == "chat_template_kwargs"


class TestLength:
    def test_max_tokens(self, qwen3: PromptBuilder) -> None:
        assert qwen3.build(PromptRequest(messages=chat(), max_tokens=7)).request_output_len == 7
        assert qwen3.build(PromptRequest(messages=chat(), max_tokens=51)).request_output_len == 51
        capped = PromptRequest(messages=chat(), max_tokens=52, cap_max_tokens=True)
        assert qwen3.build(capped).request_output_len == 51
        error = refused(qwen3, messages=chat(), max_tokens=52)
        assert (error.kind, error.param) == ("context_length", "max_tokens")
        assert "is 64 tokens. However, you requested 65 tokens (13 in the messages, 52 in the comp" in error.message
        assert refused(qwen3, messages=chat(), max_tokens=0).param == "max_tokens"
        assert refused(qwen3, messages=chat(), max_tokens=-1).kind == "invalid_request"

    def test_a_prompt_must_leave_room_for_one_token(self, qwen3: PromptBuilder) -> None:
        assert qwen3.build(PromptRequest(input_ids=(1,) * 63)).request_output_len == 1
        error = refused(qwen3, input_ids=(1,) * 64)
        assert (error.kind, error.param) == ("context_length", "prompt")
        assert error.message == (
            "This model's maximum context length is 64 tokens. However, your prompt resulted in 64 tokens. "
            "Please reduce the length of the prompt."
        )
        assert refused(qwen3, messages=chat([{"role": "user", "content": "hi " * 100}])).param == "messages"

    @pytest.mark.parametrize("word", ["word ", "x", " "])
    def test_a_huge_text_is_not_tokenized_whole(
        self, qwen3: PromptBuilder, monkeypatch: pytest.MonkeyPatch, word: str
    ) -> None:
        longest = 0

        def encode(text: str, add_special_tokens: bool) -> list[int]:
            nonlocal longest
            longest = max(longest, len(text))
            return original(text, add_special_tokens)

        original = qwen3.tokenizer.encode
        monkeypatch.setattr(qwen3.tokenizer, "encode", encode)
        error = refused(qwen3, text=word * 1_000_000)
        assert error.kind == "context_length"
        assert "resulted in at least" in error.message
        assert longest <= 16 * MAX_MODEL_LEN

    def test_a_text_of_long_tokens_still_fits(self, qwen3: PromptBuilder) -> None:
        # 128 spaces are one token of this vocabulary, so 50 times that is not too long.
        assert len(qwen3.build(PromptRequest(text=" " * 128 * 50)).input_ids) <= MAX_MODEL_LEN

    def test_the_checkpoint_s_length_by_default(self, gemma3: PromptBuilder) -> None:
        assert gemma3.build(PromptRequest(text="hi")).request_output_len == 32768 - 2


class TestEnds:
    def test_the_family_s_turn_end_is_added(self, gemma3: PromptBuilder, qwen3_tokenizer: ChatTokenizer) -> None:
        built = gemma3.build(PromptRequest(messages=chat()))
        assert (built.end_id, built.stop_words) == (1, [[106]])
        checkpoint = qwen3_checkpoint(ENDOFTEXT)  # As base models' configurations have it.
        built = PromptBuilder(checkpoint, qwen3_tokenizer, find_styler(checkpoint)).build(PromptRequest(text="a"))
        assert (built.end_id, built.stop_words) == (ENDOFTEXT, [[IM_END]])

    def test_ignoring_eos_leaves_no_end_ids(self, qwen3: PromptBuilder) -> None:
        built = qwen3.build(PromptRequest(messages=chat(), end_id=-1))
        assert (built.end_id, built.stop_words) == (-1, [])
        built = qwen3.build(PromptRequest(messages=chat(), end_id=-1, stop_token_ids=(5,), stop_words=("\n\n",)))
        assert (built.end_id, built.stop_words) == (-1, [[271], [5]])

    def test_the_request_s_own(self, qwen3: PromptBuilder) -> None:
        built = qwen3.build(PromptRequest(messages=chat(), end_id=11, pad_id=12))
        assert (built.end_id, built.pad_id, built.stop_words) == (11, 12, [])
        built = qwen3.build(PromptRequest(messages=chat(), stop_token_ids=(7, ENDOFTEXT)))
        assert built.stop_words == [[ENDOFTEXT], [7]]
        assert refused(qwen3, messages=chat(), end_id=151936).param == "end_id"
        assert refused(qwen3, messages=chat(), stop_token_ids=(-5,)).param == "stop_token_ids"

    def test_stop_words_are_token_sequences(self, qwen3: PromptBuilder) -> None:
        built = qwen3.build(PromptRequest(messages=chat(), stop_words=("Observation:", "")))
        assert built.stop_words == [qwen3.tokenizer.encode("Observation:", add_special_tokens=False), [ENDOFTEXT]]


class TestBias:
    def test_bad_words_with_and_without_a_space(self, qwen3: PromptBuilder) -> None:
        built = qwen3.build(PromptRequest(messages=chat(), bad_words=("cat", " cat", "", " ")))
        assert built.bad_words == [qwen3.tokenizer.encode(form, add_special_tokens=False) for form in ("cat", " cat")]

    def test_bias(self, qwen3: PromptBuilder) -> None:
        (cat,) = qwen3.tokenizer.encode("cat", add_special_tokens=False)
        built = qwen3.build(
            PromptRequest(messages=chat(), bias_words=(("cat", 1.5), ("cat", 1.0)), logit_bias={cat: -100.0, 5: 2.0})
        )
        assert built.embedding_bias == {cat: -97.5, 5: 2.0}

    @pytest.mark.parametrize("logit_bias", [{151936: 1.0}, {-1: 1.0}, {5: 100.5}, {5: float("nan")}])
    def test_odd_bias(self, qwen3: PromptBuilder, logit_bias: dict[int, float]) -> None:
        assert refused(qwen3, messages=chat(), logit_bias=logit_bias).param == "logit_bias"

    def test_odd_weights(self, qwen3: PromptBuilder) -> None:
        error = refused(qwen3, messages=chat(), bias_words=(("cat", float("inf")),))
        assert error.param == "embedding_bias_weights"


@pytest.mark.parametrize(
    ("source", "turns", "kept"),
    [
        # As gpt-oss: what clients are sent has no markup at all.
        (
            "{% for m in messages %}<|start|>{{ m.role }}<|message|>{{ m.content }}<|end|>{% endfor %}"
            "{# <|channel|> #}{% if add_generation_prompt %}<|start|>assistant{% endif %}",
            ("<|start|>", "<|end|>"),
            (),
        ),
        # As Solar, which ends its reasoning as it ends a turn.
        (
            "{% for m in messages %}<|begin|>{{ m.role }}<|content|>{{ m.content }}<|end|>{% endfor %}"
            "{# <|tool_call:begin|> #}{% if add_generation_prompt %}<|begin|>assistant{% endif %}",
            ("<|begin|>", "<|end|>"),
            ("<|think|>",),
        ),
        # As SmolLM3, whose system prompt speaks of its tags.
        (
            "<|im_start|>system\n<think> </think><|im_end|>{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"
            "<|im_end|>{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n<think></think>{% endif %}",
            ("<|im_start|>", "<|im_end|>"),
            ("<think>", "</think>"),
        ),
    ],
)
def test_an_earlier_answer_cannot_end_its_turn(
    qwen3_tokenizer_dir: Path, source: str, turns: tuple[str, ...], kept: tuple[str, ...]
) -> None:
    tokenizer = with_template(ChatTokenizer.load(qwen3_tokenizer_dir), source)
    tokenizer.backend.add_special_tokens(["<|channel|>", "<|message|>", "<|content|>", *turns, *kept])
    checkpoint = qwen3_checkpoint(151645)
    builder = PromptBuilder(checkpoint, tokenizer, find_styler(checkpoint, "default"))

    def counts(answer: str) -> list[int]:
        messages = [HELLO[0], {"role": "assistant", "content": answer}, HELLO[0]]
        ids = builder.build(PromptRequest(messages=chat(messages))).input_ids
        return [ids.count(tokenizer.token_id(token)) for token in (*turns, *kept)]

    plain = counts("fine")
    expected = plain[: len(turns)] + [count + 1 for count in plain[len(turns) :]]
    assert counts("".join((*turns, *kept))) == expected


def test_ids_are_checked_against_the_vocabulary(qwen3: PromptBuilder) -> None:
    error = refused(qwen3, input_ids=(1, 151936))
    assert (error.message, error.param) == ("prompt: token id 151936 is not in 0..151935", "prompt")
    assert refused(qwen3, input_ids=(-1, 1)).param == "prompt"


class TestGuides:
    def test_of_a_chat(self, qwen3: PromptBuilder) -> None:
        fields = {"response_format": {"type": "json_object"}}
        thinking = qwen3.build(PromptRequest(messages=chat(**fields)))
        assert thinking.guide_type == "structural_tag"
        assert "<think>" in (thinking.guide or "")
        direct = qwen3.build(PromptRequest(messages=chat(**fields, enable_thinking=False)))
        assert (direct.guide_type, direct.guide) == ("json", None)

    def test_of_tensors(self, qwen3: PromptBuilder) -> None:
        for prompt in ({"text": "a"}, {"messages": chat()}):
            built = qwen3.build(PromptRequest(**prompt, guide_type="regex", guide="a+"))
            assert (built.guide_type, built.guide) == ("regex", "a+")
        messages = chat(response_format={"type": "json_object"})
        assert refused(qwen3, messages=messages, guide_type="json").param == "guided_decoding_guide"

    def test_tools_that_could_not_be_called(self, qwen3_tokenizer: ChatTokenizer) -> None:
        checkpoint = qwen3_checkpoint(IM_END)
        builder = PromptBuilder(
            checkpoint, qwen3_tokenizer, find_styler(checkpoint, "internvl2_5", describe_tools=False)
        )
        tools = [{"type": "function", "function": {"name": "f"}}]
        assert refused(builder, messages=chat(tools=tools)).param == "tools"
        hidden = builder.build(PromptRequest(messages=chat(tools=tools, tool_choice="none")))
        forced = builder.build(PromptRequest(messages=chat(tools=tools, tool_choice="required")))
        assert forced.input_ids == hidden.input_ids
        assert hidden.guide is None and '"begin": "<tool_call>' in (forced.guide or "")


class TestCutPrompts:
    TEXT = "one two three four five six seven eight nine ten"

    @pytest.mark.parametrize("side", ["left", "right"])
    @pytest.mark.parametrize("most", [1, 4, 63])
    def test_as_transformers_cuts(self, qwen3: PromptBuilder, qwen3_tokenizer_dir: Path, side: str, most: int) -> None:
        own = AutoTokenizer.from_pretrained(qwen3_tokenizer_dir, truncation_side=side)
        for text in (self.TEXT, self.TEXT * 100, "世界" * 3000):
            expected = own(text, truncation=True, max_length=most)["input_ids"]
            request = PromptRequest(text=text, truncate_prompt_tokens=most, truncation_side=side, max_tokens=1)
            assert qwen3.build(request).input_ids == expected
            ids = tuple(own(text)["input_ids"])
            request = PromptRequest(input_ids=ids, truncate_prompt_tokens=most, truncation_side=side, max_tokens=1)
            assert qwen3.build(request).input_ids == expected

    @pytest.mark.parametrize("side", ["left", "right"])
    @pytest.mark.parametrize("text", ["1234567" * 9, "ab" * 40 + "a", "2024-11-05 " * 20 + "0123456789" * 4])
    def test_groups_are_those_of_the_whole_prompt(self, grouping: PromptBuilder, side: str, text: str) -> None:
        """Digits are grouped from the left as in Llama 3, and letters merged so: a cut inside would shift them all."""
        own = Tokenizer.from_str(grouping.tokenizer.backend.to_str())
        for most in range(1, 8):
            own.enable_truncation(most, direction=side)
            request = PromptRequest(text=text, truncate_prompt_tokens=most, truncation_side=side, max_tokens=1)
            assert grouping.build(request).input_ids == own.encode(text).ids

    @pytest.mark.parametrize("side", ["left", "right"])
    @pytest.mark.parametrize("most", [1, 7, MAX_MODEL_LEN])
    def test_a_text_that_is_too_long_for_any_context(self, grouping: PromptBuilder, side: str, most: int) -> None:
        """Only a part of it is tokenized."""
        encoded: list[int] = []
        encode = grouping.tokenizer.encode

        def recording(text: str, add_special_tokens: bool) -> list[int]:
            encoded.append(len(text))
            return encode(text, add_special_tokens)

        text = "12 345 6789 " * 5000
        expected = encode(text, True)
        request = PromptRequest(text=text, truncate_prompt_tokens=most, truncation_side=side, max_tokens=1)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(grouping.tokenizer, "encode", recording)
            ids = grouping._encode_cut(text, request, add_special_tokens=False)
        assert ids == (expected[-most:] if side == "left" else expected[:most])
        assert max(encoded) <= 16 * MAX_MODEL_LEN

    def test_bos_stays(self, gemma3: PromptBuilder, gemma3_tokenizer_dir: Path) -> None:
        own = AutoTokenizer.from_pretrained(gemma3_tokenizer_dir, truncation_side="left")
        expected = own(self.TEXT, truncation=True, max_length=4)["input_ids"]
        assert expected[0] == own.bos_token_id
        assert gemma3.build(PromptRequest(text=self.TEXT, truncate_prompt_tokens=4)).input_ids == expected
        bare = PromptRequest(text=self.TEXT, truncate_prompt_tokens=4, add_special_tokens=False)
        assert own.bos_token_id not in gemma3.build(bare).input_ids

    @pytest.mark.parametrize("max_tokens", [None, 1, 10])
    def test_as_many_as_fit(self, qwen3: PromptBuilder, max_tokens: int | None) -> None:
        request = PromptRequest(text=self.TEXT * 10, truncate_prompt_tokens=-1, max_tokens=max_tokens)
        built = qwen3.build(request)
        assert (len(built.input_ids), built.request_output_len) == (MAX_MODEL_LEN - (max_tokens or 1), max_tokens or 1)

    def test_more_than_fits_is_an_error(self, qwen3: PromptBuilder) -> None:
        error = refused(qwen3, text=self.TEXT * 10, truncate_prompt_tokens=1000)
        assert (error.kind, error.param) == ("context_length", "prompt")

    def test_a_chat_keeps_its_end(self, qwen3: PromptBuilder) -> None:
        whole = qwen3.build(PromptRequest(messages=chat())).input_ids
        assert qwen3.build(PromptRequest(messages=chat(), truncate_prompt_tokens=6)).input_ids == whole[-6:]
        error = refused(qwen3, messages=chat(), truncate_prompt_tokens=6, truncation_side="right")
        assert error.param == "truncation_side"

    def test_spelled_markup_of_a_long_chat_stays_text(self, qwen3: PromptBuilder) -> None:
        """Placeholders for markup are cut with the text, and what is kept of them is whole."""
        long = [{"role": "user", "content": "<|im_end|>" * 2000}]
        ids = qwen3.build(PromptRequest(messages=chat(long), truncate_prompt_tokens=40, max_tokens=1)).input_ids
        assert len(ids) == 40
        assert ids.count(IM_END) == 1
        assert "<|im_end|><|im_end|>" in qwen3.tokenizer.backend.decode(ids, skip_special_tokens=False)


@pytest.mark.parametrize("messages", [HELLO, [{"role": "user", "content": "<end_of_turn>"}]])
def test_special_tokens_on_top_of_a_template(gemma3: PromptBuilder, messages: list[Any]) -> None:
    without = gemma3.build(PromptRequest(messages=chat(messages))).input_ids
    built = gemma3.build(PromptRequest(messages=chat(messages), add_special_tokens=True)).input_ids
    assert built == [without[0], *without]


class TestTemplatesWithVariables:
    TEMPLATE = "{% for one in documents or [] %}[{{ one.title }}: {{ one.text }}]{% endfor %}{{ verbosity }}"
    DOCUMENTS = ({"title": "a", "text": "<|im_end|>"},)

    @pytest.fixture
    def reading(self, qwen3_tokenizer: ChatTokenizer) -> PromptBuilder:
        checkpoint = qwen3_checkpoint(IM_END)
        tokenizer = with_template(qwen3_tokenizer, self.TEMPLATE)
        return PromptBuilder(checkpoint, tokenizer, find_styler(checkpoint), MAX_MODEL_LEN)

    def test_they_get_documents_and_verbosity(self, reading: PromptBuilder) -> None:
        built = reading.build(PromptRequest(messages=chat(documents=self.DOCUMENTS, verbosity="low")))
        text = reading.tokenizer.backend.decode(built.input_ids, skip_special_tokens=False)
        assert text == "[a: <|im_end|>]low"
        assert IM_END not in built.input_ids

    def test_the_client_s_own_variable_wins(self, reading: PromptBuilder) -> None:
        own = {"verbosity": "terse"}
        built = reading.build(PromptRequest(messages=chat(verbosity="low", chat_template_kwargs=own)))
        assert reading.tokenizer.backend.decode(built.input_ids) == "terse"

    def test_others_refuse_documents_and_ignore_verbosity(self, qwen3: PromptBuilder) -> None:
        error = refused(qwen3, messages=chat(documents=self.DOCUMENTS))
        assert (error.param, "takes no documents" in error.message) == ("documents", True)
        assert qwen3.build(PromptRequest(messages=chat(verbosity="low", documents=[]))) == qwen3.build(
            PromptRequest(messages=chat())
        )

    @pytest.mark.parametrize("fields", [{"documents": "x"}, {"documents": ["x"]}, {"verbosity": "loud"}])
    def test_wrong_values(self, reading: PromptBuilder, fields: dict[str, Any]) -> None:
        error = refused(reading, messages=chat(**fields))
        assert str(error.param).startswith(next(iter(fields)))
