# SPDX-License-Identifier: Apache-2.0
"""Read the contract's tensors from a Triton request, and write them to a response.

Numbers are read through DLPack, as the embedded server's own conversion fails with numpy 2.
"""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from torch.utils.dlpack import from_dlpack

from common.errors import RequestError
from common.finish_reason import FinishReason
from common.response_batch import TOKENS, Begin, encode_rows
from common.sampling import ENGINE_PARAMETERS, INT32_MAX, SAMPLING, UINT64_MAX, Limits, check_sampling
from common.shared_bytes import Handle, take
from engines.engine import Generation, Once, Tokens
from python_backend.api import InferenceRequest, Tensor, pb_utils

log = logging.getLogger("tensorrt_llm")

# Writing through numpy is faster: 5.5 instead of 4 thousand responses a second, with three tensors each on two cores.
NUMPY_TENSORS = np.lib.NumpyVersion(np.__version__) < "2.0.0"
NUMPY_DTYPES = {torch.int32: np.int32, torch.int64: np.int64, torch.float32: np.float32}

UNSUPPORTED = ("decoder_input_ids", "draft_input_ids", "lora_weights", "lora_config")
REQUIRED = ("input_lengths", "request_output_len")

# As many as the frontend's `n`.
SEQUENCES = Limits(1, 128)
OUTPUT_LENGTH = Limits(1, INT32_MAX)

# Generation field -> the contract's input, for scalars that are read as they are.
SCALARS = {field: one.engine_input for field, one in SAMPLING.items() if one.datatype is not None}


class Inputs:
    """The inputs of one request by name. A request of batch 1 has row 0 only.

    Triton (24.10) refuses most batches of 0 rows itself: readers raise RequestError for an input without a row.
    """

    def __init__(self, request: InferenceRequest) -> None:
        self._tensors = {tensor.name(): tensor for tensor in request.inputs()}

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def tensor(self, name: str) -> torch.Tensor | None:
        """The input as a torch tensor that shares the request's memory, or None if it is absent."""
        tensor = self._tensors.get(name)
        if tensor is None:
            return None
        rows: torch.Tensor = from_dlpack(tensor.to_dlpack())
        if not len(rows):
            raise _no_row(name)
        return rows

    def size(self, name: str) -> int:
        """How many elements an input has, 0 if it is absent."""
        tensor = self.tensor(name)
        return 0 if tensor is None else tensor.numel()

    def scalar(self, name: str, row: int, default: Any = None) -> Any:
        """The row's number of a [batch] input, or the default if it is absent."""
        tensor = self.tensor(name)
        return default if tensor is None else tensor.flatten()[row].item()

    def text(self, name: str, row: int) -> str | None:
        """The row's string of a [batch, 1] STRING input, or None if it is absent."""
        texts = self.texts(name)
        if texts is None:
            return None
        if not texts:
            raise _no_row(name)
        return texts[row]

    def texts(self, name: str) -> list[str] | None:
        """All strings of an input in order, or None if it is absent."""
        tensor = self._tensors.get(name)
        if tensor is None:
            return None
        try:
            return [text.decode() for text in tensor.as_numpy().flatten()]
        except UnicodeDecodeError:
            raise RequestError(f"'{name}' is not valid UTF-8", param=name) from None

    def words(self, name: str, row: int) -> list[list[int]]:
        """The id sequences of a [batch, 2, n] input.

        The first line has all ids, the second the end offset of each sequence, padded with -1.
        """
        tensor = self.tensor(name)
        if tensor is None:
            return []
        ids, ends = tensor[row].tolist()
        starts = [0, *ends]
        return [ids[start:end] for start, end in zip(starts, ends, strict=False) if end > start >= 0]


def _no_row(name: str) -> RequestError:
    return RequestError(f"'{name}' has no row", param=name)


def read_generations(
    inputs: Inputs,
    parameters: dict[str, Any],
    request_id: str = "",
    check_room: Callable[[int], None] = lambda _: None,
) -> Iterator[tuple[int, int, Generation]]:
    """Yield (batch_index, sequence_index, generation) for every row and return sequence of a request.

    check_room: gets the number of generations before their tensors are copied, and raises RequestError if there is no
    room for them.
    Raises RequestError if the request has an input that no Python engine supports, or a value outside its limits.
    """
    for name in UNSUPPORTED:
        if name in inputs:
            raise RequestError(f"this engine does not take '{name}'", param=name)
    # Triton (24.10) only counts the required inputs: an optional one can stand for one of them.
    for name in REQUIRED:
        if name not in inputs:
            raise RequestError(f"{name} is missing", param=name)
    rows = range(inputs.size("input_lengths"))
    # First, as shared memory stays until it is taken.
    shared = [_take_multimodal(inputs, row) for row in rows]
    counts = [_count(inputs, row) for row in rows]
    check_room(sum(counts))
    for row, count in enumerate(counts):
        media = _read_media(inputs, row, shared[row])
        for sequence in range(count):
            yield row, sequence, _read_generation(inputs, parameters, row, sequence, request_id, media)


def _count(inputs: Inputs, row: int) -> int:
    """How many generations a row asks for."""
    if inputs.scalar("beam_width", row, 1) != 1:
        raise RequestError("this engine has no beam search: beam_width must be 1", param="beam_width")
    count: int = inputs.scalar("num_return_sequences", row, 1)
    SEQUENCES.check(count, "num_return_sequences")
    return count


def _read_generation(
    inputs: Inputs,
    parameters: dict[str, Any],
    row: int,
    sequence: int,
    request_id: str,
    media: "_Media",
) -> Generation:
    ids = inputs.tensor("input_ids")
    if ids is None:
        raise RequestError("input_ids is missing", param="input_ids")
    length = inputs.scalar("input_lengths", row)
    Limits(1, ids.shape[1]).check(length, "input_lengths")
    if int(ids[row, :length].min()) < 0:
        raise RequestError("a token id of the prompt is negative", param="input_ids")
    max_tokens = inputs.scalar("request_output_len", row)
    OUTPUT_LENGTH.check(max_tokens, "max_tokens")
    scalars = _read_sampling(inputs, row, sequence)
    if (scalars["min_tokens"] or 0) > max_tokens:
        raise RequestError(f"min_tokens must be at most {max_tokens}, what the answer may have", param="min_tokens")
    bias, extra_ids = inputs.tensor("embedding_bias"), inputs.tensor("prompt_table_extra_ids")
    if extra_ids is not None and extra_ids.shape[1] < length:
        name = "prompt_table_extra_ids"
        raise RequestError(f"{name} must have one for each of the {length} ids", param=name)
    return Generation(
        prompt_ids=ids[row, :length].tolist(),
        max_tokens=max_tokens,
        end_id=inputs.scalar("end_id", row, -1),
        stop_words=inputs.words("stop_words_list", row),
        bad_words=inputs.words("bad_words_list", row),
        embedding_bias=None if bias is None else _finite(bias[row]),
        prompt_table=media.prompt_table,
        images=media.images,
        multimodal=None if media.multimodal is None else Once(media.multimodal),
        prompt_extra_ids=None if extra_ids is None else extra_ids[row, :length].tolist(),
        return_log_probs=inputs.scalar("return_log_probs", row, False),
        streaming=inputs.scalar("streaming", row, False),
        lora_task_id=inputs.scalar("lora_task_id", row),
        guide_type=inputs.text("guided_decoding_guide_type", row),
        guide=inputs.text("guided_decoding_guide", row),
        request_id=request_id,
        **scalars,
        **_read_parameters(parameters),
    )


@dataclass(frozen=True, slots=True)
class _Media:
    """The large tensors of a row, in memory of their own. All sequences of the row share them."""

    prompt_table: torch.Tensor | None
    images: torch.Tensor | None
    multimodal: torch.Tensor | None


def _read_media(inputs: Inputs, row: int, shared: torch.Tensor | None) -> _Media:
    """Copy the row's tensors. shared: the bytes of its pictures, if they came in shared memory."""
    table, images, multimodal = map(inputs.tensor, ("prompt_embedding_table", "images", "multimodal"))
    return _Media(
        prompt_table=None if table is None else table[row].clone(),
        images=None if images is None else images[row].clone(),
        multimodal=shared if shared is not None or multimodal is None else multimodal[row].clone(),
    )


def _take_multimodal(inputs: Inputs, row: int) -> torch.Tensor | None:
    """The bytes of the row's pictures, if they are in shared memory that can be read."""
    handle = inputs.tensor("multimodal_memory")
    try:
        return None if handle is None else torch.from_numpy(take(Handle(*handle[row].tolist())))
    except LookupError as error:
        _log_unreadable(str(error))
        # A sender that does not know yet whether its memory can be taken sends both.
        if "multimodal" not in inputs:
            raise RequestError("the memory with the request's pictures has gone", kind="unavailable") from error
        return None


@cache
def _log_unreadable(reason: str) -> None:
    """Say it once: on some systems it is so for every request."""
    log.warning("features of pictures in shared memory cannot be read: %s", reason)


def _read_sampling(inputs: Inputs, row: int, sequence: int) -> dict[str, Any]:
    """The sampling parameters with a tensor, checked."""
    scalars = {field: inputs.scalar(name, row) for field, name in SCALARS.items()}
    check_sampling(scalars)
    if scalars["seed"] is not None:
        scalars["seed"] = (scalars["seed"] + sequence) % (UINT64_MAX + 1)
    if scalars["top_p"] == 0:
        # The likeliest token, also for a fraction so small that it is 0 in single precision. Engines differ in their
        # handling of 0, but not of top_k 1.
        scalars |= {"top_p": 1.0, "top_k": 1}
    return scalars


def _finite(bias: torch.Tensor) -> torch.Tensor:
    if not bool(bias.isfinite().all()):
        raise RequestError("embedding_bias must be finite", param="logit_bias")
    return bias


def _read_parameters(parameters: dict[str, Any]) -> dict[str, Any]:
    return {
        parameter.field: parameter.read(parameters[name], name)
        for name, parameter in ENGINE_PARAMETERS.items()
        if name in parameters
    }


class Outputs:
    """Builds the response tensors of one generation, limited to the outputs that the request asked for."""

    def __init__(self, requested: set[str], inputs: Inputs, stream_id: int, batch: int, sequence: int) -> None:
        self._requested = requested
        self._prompt_length = inputs.scalar("input_lengths", batch)
        self._counts = {
            name for name in ("num_input_tokens", "num_output_tokens") if inputs.scalar(f"return_{name}", batch, False)
        }
        # What only postprocessing reads goes with the first response, since an ensemble's step cannot take it earlier.
        self._reasoning_open = inputs.scalar("reasoning_open", batch)
        self.stream_id, self._batch, self._sequence = stream_id, batch, sequence
        self._length, self._cum_log_prob, self._first = 0, 0.0, True

    def tensors(self, tokens: Tokens) -> list[Tensor]:
        """Build the tensors of the next response, each with a leading batch dimension of 1."""
        self._length += len(tokens.ids)
        values: list[tuple[str, Any, torch.dtype]] = [
            ("output_ids", [[tokens.ids]], torch.int32),
            ("sequence_length", [[self._length]], torch.int32),
            ("stream_id", [[self.stream_id]], torch.int64),
        ]
        if self._batch or self._sequence:
            values += [
                ("batch_index", [[self._batch]], torch.int32),
                ("sequence_index", [[self._sequence]], torch.int32),
            ]
        if tokens.logprobs is not None:
            values += self._logprobs(tokens)
        if tokens.prompt_ids is not None:
            values.append(("prompt_log_probs_ids", [tokens.prompt_ids], torch.int32))
        if tokens.prompt_logprobs is not None:
            values.append(("prompt_log_probs", [tokens.prompt_logprobs], torch.float32))
        if tokens.prompt_ranks is not None:
            values.append(("prompt_log_probs_ranks", [tokens.prompt_ranks], torch.int32))
        if self._first:
            values += self._prompt_counts(tokens)
        if tokens.finish is not None:
            values += self._last(tokens.finish)
        if tokens.draft_tokens is not None:
            values += _drafts(tokens.draft_tokens, tokens.accepted_draft_tokens or 0)
        return [_tensor(name, value, dtype) for name, value, dtype in values if name in self._requested]

    def begin_rows(self, request_id: str, parameters: str) -> None:
        """Prepare for `row`. parameters: those of the request, as JSON."""
        self._request_id, self._parameters, self._rows = request_id, parameters, 0

    def row(self, tokens: Tokens | None, error: RequestError | None = None) -> tuple[Any, ...]:
        """Build the next response as a row of a batch: the fields of TokenRow, as a plain tuple.

        error: ends the generation, after these tokens if any.
        """
        number = self._rows
        if tokens is None:
            self._rows += 1
            text = None if error is None else error.encode()
            return self._request_id, self.stream_id, number, [], None, None, text
        begin = None
        if number == 0:
            prompt_tokens = self._prompt_length if tokens.prompt_tokens is None else tokens.prompt_tokens
            counted = prompt_tokens if "num_input_tokens" in self._counts else None
            begin = Begin(self._parameters, self._reasoning_open, counted, tokens.cached_tokens)
        finish = None if tokens.finish is None else int(tokens.finish)
        row = self._request_id, self.stream_id, number, tokens.ids, finish, begin
        # Last: a row that cannot be built has no number, which the row with its error takes.
        self._rows += 1
        return row if error is None else (*row, error.encode())

    def _logprobs(self, tokens: Tokens) -> list[tuple[str, Any, torch.dtype]]:
        self._cum_log_prob += sum(tokens.logprobs or [])
        values: list[tuple[str, Any, torch.dtype]] = [
            ("output_log_probs", [[tokens.logprobs]], torch.float32),
            ("cum_log_probs", [[self._cum_log_prob]], torch.float32),
        ]
        if tokens.top_ids is not None:
            values += [
                ("top_log_probs_ids", [tokens.top_ids], torch.int32),
                ("top_log_probs", [tokens.top_logprobs], torch.float32),
            ]
        return values

    def _prompt_counts(self, tokens: Tokens) -> list[tuple[str, Any, torch.dtype]]:
        """Part of the first response: a stop string may end the answer before the engine sends its last one."""
        self._first = False
        values: list[tuple[str, Any, torch.dtype]] = []
        if self._reasoning_open is not None:
            values.append(("reasoning_open", [[self._reasoning_open]], torch.int32))
        if "num_input_tokens" in self._counts:
            count = self._prompt_length if tokens.prompt_tokens is None else tokens.prompt_tokens
            values.append(("num_input_tokens", [[count]], torch.int32))
        if tokens.cached_tokens is not None:
            values.append(("num_cached_tokens", [[tokens.cached_tokens]], torch.int32))
        return values

    def _last(self, finish: FinishReason) -> list[tuple[str, Any, torch.dtype]]:
        values: list[tuple[str, Any, torch.dtype]] = [("finish_reason", [[int(finish)]], torch.int32)]
        if "num_output_tokens" in self._counts:
            values.append(("num_output_tokens", [[self._length]], torch.int32))
        return values


def batch_tensors(rows: list[tuple[Any, ...]]) -> list[Tensor]:
    """Build a response of the tokens of several requests. rows: as `Outputs.row` makes them.

    Raises TypeError if one holds what JSON cannot.
    """
    batch = torch.frombuffer(bytearray(encode_rows(rows)), dtype=torch.uint8)[None]
    if NUMPY_TENSORS:
        return [pb_utils.Tensor(TOKENS, batch.numpy())]
    return [pb_utils.Tensor.from_dlpack(TOKENS, batch)]


def _drafts(drafted: int, accepted: int) -> list[tuple[str, Any, torch.dtype]]:
    """Speculative decoding's tokens of a whole generation."""
    return [
        ("total_draft_tokens", [[drafted]], torch.int32),
        ("total_accepted_draft_tokens", [[accepted]], torch.int32),
        ("acceptance_rate", [[accepted / drafted if drafted else 0.0]], torch.float32),
    ]


def text_tensors(name: str, text: str) -> list[Tensor]:
    """Build a response of one text, such as the versions in BUILD_INFO."""
    return [pb_utils.Tensor(name, np.array([[text.encode()]], dtype=object))]


def error_tensors(error: str, stream_id: int | None) -> list[Tensor]:
    """Build the response of a failed generation as data: no ids, and the error's text.

    stream_id: that of its earlier responses, or None if there were none.
    """
    text = pb_utils.Tensor("error", np.array([[error.encode()]], dtype=object))
    stream = [] if stream_id is None else [_tensor("stream_id", [[stream_id]], torch.int64)]
    return [_tensor("output_ids", [[[]]], torch.int32), _tensor("sequence_length", [[0]], torch.int32), text, *stream]


def _tensor(name: str, value: Any, dtype: torch.dtype) -> Tensor:
    if NUMPY_TENSORS:
        return pb_utils.Tensor(name, np.array(value, dtype=NUMPY_DTYPES[dtype]))
    return pb_utils.Tensor.from_dlpack(name, torch.tensor(value, dtype=dtype))
