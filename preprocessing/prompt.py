# SPDX-License-Identifier: Apache-2.0
"""Builds the engine's input from a request: prompt ids, limits, end ids, stop words, biases, guide and pictures."""

import json
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from common.chat.messages import Place, place_nothing
from common.chat.parts import MediaPart, MediaRequest, Picture
from common.chat.request import ChatRequest
from common.checkpoint import Checkpoint
from common.errors import RequestError
from common.tokenizer import ChatTokenizer
from families.parsers import AnswerFormat
from families.parsers.formats import call_form
from families.stylers.base import Styler
from preprocessing.guides.build import Guide, Reasoning, build_guide, check_guide, reasoning_state
from preprocessing.images.family import ImageFamily, MediaPrompt
from preprocessing.literal_text import LiteralText

IGNORE_EOS = -1
# OpenAI's range for logit_bias.
_BIAS_LIMIT = 100.0
# Of a text with more characters than this per token of the context, only the head is tokenized first: ordinary text has
# 1 to 5 characters per token, so the head is enough to refuse it as too long.
_HEAD_CHARS_PER_TOKEN = 16


@dataclass(frozen=True, slots=True)
class PromptRequest:
    """The prompt of a request and its options that depend on the tokenizer.

    Exactly one of text, messages (the JSON text of common.chat.request) and input_ids is set.
    images: encoded image and video files in the order of their places in the prompt.
    add_special_tokens: such as BOS; None for a text, not for a chat, whose template writes them.
    truncate_prompt_tokens: keep so many tokens, -1 for as many as fit; None for all. truncation_side: "left", which
    keeps the end of the prompt, or "right".
    max_tokens: None for the rest of the context. cap_max_tokens: more is as much as the rest, no error.
    end_id: -1 for none; None for the checkpoint's.
    bias_words: (word, bias added to each of its tokens). logit_bias: id -> bias.
    """

    text: str | None = None
    messages: str | None = None
    input_ids: tuple[int, ...] | None = None
    images: tuple[bytes, ...] = ()
    add_special_tokens: bool | None = None
    truncate_prompt_tokens: int | None = None
    truncation_side: str = "left"
    max_tokens: int | None = None
    cap_max_tokens: bool = False
    stop_words: tuple[str, ...] = ()
    bad_words: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    end_id: int | None = None
    pad_id: int | None = None
    bias_words: tuple[tuple[str, float], ...] = ()
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    guide_type: str | None = None
    guide: str | None = None


@dataclass(frozen=True, slots=True)
class EngineInput:
    """The engine's inputs that follow from the prompt.

    request_output_len: maximum number of new tokens. end_id: -1 for none. stop_words, bad_words: token sequences.
    embedding_bias: id -> logit bias; other ids have none. guide_type, guide: see preprocessing.guides.build.
    pictures: pixels in the order of their image tokens in input_ids. extra_ids: one per id if there are pictures.
    features: bytes in pieces, what the engine's own processor made of the pictures, instead of `pictures`.
    reasoning_open: whether the prompt of a chat ends inside the model's reasoning; None for other prompts.
    """

    input_ids: list[int]
    request_output_len: int
    end_id: int
    pad_id: int
    stop_words: list[list[int]]
    bad_words: list[list[int]]
    embedding_bias: dict[int, float]
    guide_type: str | None
    guide: str | None
    pictures: Sequence[Picture] = ()
    extra_ids: list[int] | None = None
    features: Sequence[memoryview] | None = None
    reasoning_open: bool | None = None


@dataclass(frozen=True, slots=True)
class _Prompt:
    """A tokenized prompt. source: the OpenAI field that it came from; the other fields as in EngineInput."""

    input_ids: list[int]
    guide: Guide | None
    source: str
    media: MediaPrompt | None = None
    reasoning_open: bool | None = None


def _answer_tokens(tokenizer: ChatTokenizer, answer_format: AnswerFormat, turns: str) -> tuple[str, ...]:
    """The tokens that a model writes in its answers, and that its earlier answers may hold too.

    Not those in `turns`, which end and begin turns: with them an earlier answer that quotes what a user has spelled
    would be turns of other roles.
    """
    reasoning = answer_format.reasoning_format
    if reasoning and reasoning.channels:  # Clients are sent no text that has them.
        return ()
    added = (token.content for token in tokenizer.backend.get_added_tokens_decoder().values())
    markup = answer_format.markers
    return tuple(token for token in added if token not in turns and any(token in text for text in markup))


class PromptBuilder:
    """Builds engine inputs for one checkpoint. Has no state per request; safe to use from several threads."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        tokenizer: ChatTokenizer,
        styler: Styler,
        max_model_len: int | None = None,
        images: ImageFamily | None = None,
        *,
        structural_tags: bool = True,
        call_styles: bool = True,
        trust_chat_template: bool = False,
    ) -> None:
        """Prepare for one checkpoint.

        max_model_len: tokens of prompt and answer together; None for the checkpoint's maximum.
        images: the model's image family; None for a text model.
        structural_tags, call_styles: what the engine enforces, see `build_guide`.
        trust_chat_template: whether a request may have a chat template of its own.
        """
        self.checkpoint = checkpoint
        self.tokenizer = tokenizer
        self.styler = styler
        self.images = images
        self._structural_tags, self._call_styles = structural_tags, call_styles
        self._trust_chat_template = trust_chat_template
        self.max_model_len = max_model_len or checkpoint.max_position_embeddings
        self.answer_format = styler.answer_format(tokenizer)
        # The first is the checkpoint's main end id.
        self.end_ids = tuple(dict.fromkeys((*checkpoint.end_ids, *styler.stop_ids(tokenizer))))
        self._literal = LiteralText(
            tokenizer,
            (*styler.turn_ends, *(images.tokens if images else ())),
            _answer_tokens(tokenizer, self.answer_format, self._between_turns()),
        )
        self._longest_token = max(map(len, tokenizer.backend.get_vocab()))

    def _between_turns(self) -> str:
        """What the template writes after a user's text and before an answer; "" if that cannot be told."""
        text, tags = "user_text", self.answer_format.reasoning_tags or ()
        try:
            chat = ChatRequest([{"role": "user", "content": text}], add_generation_prompt=False)
            end = self.styler.render(self.tokenizer, chat).rpartition(text)[2]
            answer = self.styler.render(self.tokenizer, replace(chat, add_generation_prompt=True)).rpartition(text)[2]
        except RequestError:
            return ""
        begin = answer.removeprefix(end)
        for tag in tags:
            begin = begin.replace(tag, "")
        return end + begin

    def build(self, request: PromptRequest) -> EngineInput:
        """The engine's input for a request; raises RequestError with the invalid OpenAI field as its param."""
        prompt = self._prompt(request)
        input_ids, guide, source = prompt.input_ids, prompt.guide, prompt.source
        end_id, extra_ends = self._ends(request)
        # A text that the tokenizer drops has no ids, and no answer has it.
        stop_words = [ids for word in request.stop_words if (ids := self._word_ids(word))]
        return EngineInput(
            input_ids=input_ids,
            request_output_len=self._output_len(len(input_ids), request, source),
            end_id=end_id,
            pad_id=self.checkpoint.pad_id if request.pad_id is None else request.pad_id,
            stop_words=[*stop_words, *([item] for item in extra_ends)],
            bad_words=self._bad_words(request.bad_words),
            embedding_bias=self._bias(request),
            guide_type=guide.guide_type if guide else None,
            guide=guide.guide if guide else None,
            pictures=prompt.media.pictures if prompt.media else (),
            extra_ids=prompt.media.extra_ids if prompt.media else None,
            features=prompt.media.features if prompt.media else None,
            reasoning_open=prompt.reasoning_open,
        )

    def _prompt(self, request: PromptRequest) -> "_Prompt":
        given = [value is not None for value in (request.text, request.messages, request.input_ids)]
        if sum(given) != 1:
            raise RequestError("give exactly one of text_input, messages and input_ids", param="messages")
        guide = check_guide(request.guide_type, request.guide)
        if request.messages is not None:
            prompt = self._chat_prompt(request.messages, request, guide)
        elif request.text is not None:
            prompt = self._text_prompt(request.text, request, guide)
        elif request.images:
            raise RequestError("a prompt of ids takes no images", param="prompt")
        else:
            ids = self._check_ids(request.input_ids or (), "prompt")
            prompt = _Prompt(self._cut(ids, request, kept=0), guide, "prompt")
        if not prompt.input_ids:
            raise RequestError("the prompt is empty", param=prompt.source)
        return prompt

    def _chat_prompt(self, messages: str, request: PromptRequest, guide: Guide | None) -> "_Prompt":
        if request.truncate_prompt_tokens is not None and request.truncation_side == "right":
            raise RequestError("a chat cannot be cut on the right, where the answer begins", param="truncation_side")
        files = request.images
        chat = self._parse(messages, self.images.place if self.images else place_nothing)
        if files and self.images and not chat.media:
            chat = self._parse(messages, self.images.place_spelled, self.images.spelled)
        if chat.chat_template is not None and not self._trust_chat_template:
            raise RequestError(
                "chat_template is only accepted if the server is started with --trust-request-chat-template",
                param="chat_template",
            )
        text, chat_guide, reasoning = self._render(chat)
        if guide and chat_guide:
            raise RequestError("the chat asks for a guide of its own", param="guided_decoding_guide")
        prompt = _Prompt([], guide or chat_guide, "messages", reasoning_open=reasoning == "open")
        return self._with_pictures(text, chat.media, request, prompt, chat.media_request)

    def _parse(self, messages: str, place: Place, keep: Collection[str] = ()) -> ChatRequest:
        """The chat, with placeholders for the special tokens that it spells, but for those in `keep`."""
        if not self._literal.may_spell(messages):
            return ChatRequest.parse(messages, place)
        return ChatRequest.parse(messages, place, partial(self._literal.escape, keep=keep))

    def _text_prompt(self, text: str, request: PromptRequest, guide: Guide | None) -> "_Prompt":
        files = request.images
        parts: tuple[MediaPart, ...] = ()
        if files and self.images:
            # In a text without markers the images come first, as in a message.
            marked = self.images.place_spelled([text], "prompt")
            placed = marked if marked.parts else self.images.place([*(MediaPart() for _ in files), text], "prompt")
            text, parts = placed.text, placed.parts
        return self._with_pictures(text, parts, request, _Prompt([], guide, "prompt"), MediaRequest())

    def _with_pictures(
        self,
        text: str,
        parts: Sequence[MediaPart],
        request: PromptRequest,
        prompt: "_Prompt",
        media_request: MediaRequest,
    ) -> "_Prompt":
        """`prompt` with the ids of `text` and the pictures, if there are any."""
        files, add_special_tokens = request.images, request.add_special_tokens
        if add_special_tokens is None:
            add_special_tokens = prompt.source == "prompt"
        if not files and not parts:
            if request.truncate_prompt_tokens is not None:
                return replace(prompt, input_ids=self._encode_cut(text, request, add_special_tokens))
            return replace(prompt, input_ids=self._encode(text, prompt.source, add_special_tokens))
        if request.truncate_prompt_tokens is not None:
            raise RequestError("a prompt with pictures cannot be cut", param="truncate_prompt_tokens")
        if self.images is None:
            raise RequestError("the served model takes no images", param=prompt.source)
        encode = partial(self._encode, source=prompt.source, add_special_tokens=add_special_tokens)
        media = self.images.build(text, files, parts, self.max_model_len, encode, media_request)
        return replace(prompt, input_ids=media.input_ids, media=media)

    def _render(self, chat: ChatRequest) -> tuple[str, Guide | None, Reasoning]:
        if chat.tools:
            # Refuses tools if the model's calls could not be parsed.
            call_form(self.answer_format.tool_parser, chat.tool_choice)
        prompt = self.styler.render(self.tokenizer, chat)
        asked = self.styler.thinking(chat)
        thinking = self.answer_format.thinking_default if asked is None else asked
        reasoning = reasoning_state(chat, self.answer_format, self._judged(chat, prompt), thinking)
        guide = build_guide(
            chat,
            self.answer_format,
            reasoning,
            structural_tags=self._structural_tags,
            call_styles=self._call_styles,
        )
        return prompt, guide, reasoning

    def _judged(self, chat: ChatRequest, prompt: str) -> str:
        """The prompt by whose tags the state of the reasoning is judged: without those that earlier messages spell."""
        tags = self.answer_format.reasoning_tags
        if tags is None or not chat.continue_final_message:
            return prompt
        earlier = json.dumps(chat.messages[:-1], ensure_ascii=False)
        if not any(tag in earlier for tag in tags):
            return prompt
        for tag in tags:
            earlier = earlier.replace(tag, "")
        return self.styler.render(self.tokenizer, replace(chat, messages=[*json.loads(earlier), chat.messages[-1]]))

    def _encode(self, text: str, source: str, add_special_tokens: bool) -> list[int]:
        """Ids of `text`; a text that cannot fit is refused without tokenizing all of it, which would take seconds."""
        if count := self._far_too_many(text, add_special_tokens):
            raise self._too_long(f"at least {count}", source)
        return self._ids(text, add_special_tokens)

    def _far_too_many(self, text: str, add_special_tokens: bool) -> int:
        """0 if all of a text may be tokenized, else how many tokens it has at least, found without doing that."""
        if len(text) > self.max_model_len * self._longest_token:
            return len(text) // self._longest_token
        head = self.max_model_len * _HEAD_CHARS_PER_TOKEN
        if len(text) > head:
            # The last tokens of the head may differ from the whole text's, hence a margin of one more context.
            count = len(self._ids(text[:head], add_special_tokens))
            if count >= 2 * self.max_model_len:
                return count
        return 0

    def _encode_cut(self, text: str, request: PromptRequest, add_special_tokens: bool) -> list[int]:
        """Ids of `text`, cut to what the request wants to keep. BOS stays, if it is not the text's own.

        Of a text that would be refused if it were not to be cut, only a part is tokenized: of a whole context, or with
        twice as many tokens as are kept. Those near an end that is no end of the text may be others.
        """
        if self._far_too_many(text, add_special_tokens):
            for length in (self.max_model_len * _HEAD_CHARS_PER_TOKEN, 2 * self.max_model_len * self._longest_token):
                part = text[-length:] if request.truncation_side == "left" else text[:length]
                ids = self._ids(part, add_special_tokens)
                if len(ids) >= 2 * self._kept_tokens(request):
                    break
        else:
            ids = self._ids(text, add_special_tokens)
        return self._cut(ids, request, kept=self._bos(add_special_tokens))

    def _cut(self, ids: list[int], request: PromptRequest, kept: int) -> list[int]:
        """The ids that a request keeps. kept: number of ids at the beginning that stay whatever is cut."""
        if request.truncate_prompt_tokens is None:
            return ids
        most = self._kept_tokens(request)
        if len(ids) <= most or request.truncation_side == "right":
            return ids[:most]
        kept = min(kept, most)
        return [*ids[:kept], *ids[len(ids) - most + kept :]]

    def _kept_tokens(self, request: PromptRequest) -> int:
        """How many tokens of a prompt that is to be cut are kept at most."""
        asked = request.truncate_prompt_tokens or 0
        return min(asked, self.max_model_len) if asked > 0 else max(1, self.max_model_len - (request.max_tokens or 1))

    def _bos(self, add_special_tokens: bool) -> int:
        """Number of BOS tokens that the tokenizer puts before a text."""
        return int(add_special_tokens and self.tokenizer.bos_text() != "")

    def _ids(self, text: str, add_special_tokens: bool) -> list[int]:
        if self._literal.holds_placeholders(text):  # Only chats have placeholders.
            bos = self.tokenizer.encode("", add_special_tokens)[: self._bos(add_special_tokens)]
            return bos + self._literal.encode(text)
        return self.tokenizer.encode(text, add_special_tokens)

    def _output_len(self, prompt_len: int, request: PromptRequest, source: str) -> int:
        left, max_tokens = self.max_model_len - prompt_len, request.max_tokens
        if left <= 0:
            raise self._too_long(str(prompt_len), source)
        if max_tokens is None:
            return left
        if max_tokens < 1:
            raise RequestError(f"max_tokens must be at least 1, not {max_tokens}", param="max_tokens")
        if max_tokens > left and request.cap_max_tokens:
            return left
        if max_tokens > left:
            raise RequestError(
                f"This model's maximum context length is {self.max_model_len} tokens. However, you requested "
                f"{prompt_len + max_tokens} tokens ({prompt_len} in the {source}, {max_tokens} in the completion). "
                f"Please reduce the length of the {source} or the completion.",
                kind="context_length",
                param="max_tokens",
            )
        return max_tokens

    def _too_long(self, count: str, source: str) -> RequestError:
        return RequestError(
            f"This model's maximum context length is {self.max_model_len} tokens. However, your {source} resulted in "
            f"{count} tokens. Please reduce the length of the {source}.",
            kind="context_length",
            param=source,
        )

    def _ends(self, request: PromptRequest) -> tuple[int, list[int]]:
        """The end id, and further ids that end the answer; -1 and the request's own ids if EOS is ignored."""
        own = self._check_ids(request.stop_token_ids, "stop_token_ids")
        if request.end_id == IGNORE_EOS:
            return IGNORE_EOS, own
        if request.end_id is not None:
            return self._check_ids((request.end_id,), "end_id")[0], own
        return self.end_ids[0], list(dict.fromkeys([*self.end_ids[1:], *own]))

    def _word_ids(self, word: str) -> list[int]:
        return self.tokenizer.encode(word, add_special_tokens=False)

    def _bad_words(self, words: Iterable[str]) -> list[list[int]]:
        """The token sequences of each word, at the start of a text and after a space."""
        sequences = []
        for word in words:
            for form in (word.lstrip(), " " + word.lstrip()) if word.strip() else ():
                ids = self._word_ids(form)
                if ids and ids not in sequences:
                    sequences.append(ids)
        return sequences

    def _bias(self, request: PromptRequest) -> dict[int, float]:
        self._check_ids(request.logit_bias, "logit_bias")
        for token_id, value in request.logit_bias.items():
            if not -_BIAS_LIMIT <= value <= _BIAS_LIMIT:
                raise RequestError(f"logit_bias of {token_id} must be within -100 and 100", param="logit_bias")
        bias = dict(request.logit_bias)
        for word, weight in request.bias_words:
            if not math.isfinite(weight):
                raise RequestError("embedding_bias_weights must be finite", param="embedding_bias_weights")
            for token_id in set(self._word_ids(word)):
                bias[token_id] = bias.get(token_id, 0.0) + weight
        return bias

    def _check_ids(self, ids: Iterable[int], param: str) -> list[int]:
        checked = list(ids)
        if checked and not 0 <= min(checked) <= max(checked) < self.checkpoint.vocab_size:
            wrong = next(item for item in checked if not 0 <= item < self.checkpoint.vocab_size)
            raise RequestError(f"{param}: token id {wrong} is not in 0..{self.checkpoint.vocab_size - 1}", param=param)
        return checked
