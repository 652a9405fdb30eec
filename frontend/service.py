# SPDX-License-Identifier: Apache-2.0
"""What all requests of a process share: Triton, the limit on requests at once, and the generations under way."""

import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from frontend.errors import ApiError
from frontend.generation import Generation
from frontend.images import ImageFetcher
from frontend.metrics import Ticket
from frontend.pace import Pace
from frontend.settings import Settings
from frontend.tensors import (
    EnsembleRequest,
    decode_ids,
    decode_text,
    encode_detokenize,
    encode_request,
    encode_tokenize,
)
from frontend.triton_client import TritonClient
from preprocessing.errors import RequestError

MAX_SENT = 256 * 2**20  # bytes that one answer's requests to Triton may hold together
UNARY_TIMEOUT = 30.0  # seconds for tokenizing or detokenizing
STOP_PATIENCE = 2.0  # seconds at shutdown for Triton to take the last stops


class Service:
    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.triton = TritonClient(settings.triton_url)
        self.images = ImageFetcher(settings)
        self.pace = Pace()
        self._generations: set[Generation] = set()
        self._in_flight = 0
        self._draining = False

    def start(self) -> None:
        self.triton.start()

    async def close(self) -> None:
        self.fail_all()
        await self.triton.close(STOP_PATIENCE)
        await self.images.close()

    def drain(self) -> None:
        """Admit nothing more."""
        self._draining = True

    @property
    def draining(self) -> bool:
        return self._draining

    def fail_all(self) -> None:
        """End what is still under way: the server is going away."""
        for generation in list(self._generations):
            generation.fail(RequestError("The server is shutting down", kind="unavailable"))

    @contextmanager
    def admit(self, endpoint: str) -> Iterator[Ticket]:
        """A place among the requests at once; raises ApiError where there is none."""
        if self._draining:
            raise ApiError("overloaded", "The server is shutting down")
        if self._in_flight >= self.settings.max_in_flight:
            raise ApiError("overloaded", "Too many requests at once; try again later")
        self._in_flight += 1
        ticket = Ticket(endpoint)
        try:
            yield ticket
        except BaseException as error:
            ticket.failed(error)
            raise
        finally:
            self._in_flight -= 1
            ticket.close()

    def model_name(self, asked: str | None) -> str:
        """The model a request means; none or "" is the first served name. Raises ApiError for an unknown one."""
        names = self.settings.served_model_name
        if not asked:
            return names[0]
        if asked not in names:
            raise ApiError("unknown_model", f"The model does not exist; served: {', '.join(names)}", param="model")
        return asked

    async def require_input(self, name: str, param: str) -> None:
        """Raise RequestError naming `param` where the ensemble has no input of this name."""
        if name not in (await self.triton.capabilities()).inputs:
            raise RequestError(f"'{param}' is not supported by the engine behind this server", param=param)

    async def generate(self, requests: Sequence[EnsembleRequest], answer_id: str) -> Generation:
        """A generation that is not yet started; `end` it whatever happens."""
        capabilities = await self.triton.capabilities()
        for request in requests:
            capabilities.check(request)
        encoded = [encode_request(one, f"{answer_id}-{i}", capabilities) for i, one in enumerate(requests[:1])]
        # Every choice carries the whole prompt with its images.
        if encoded[0].ByteSize() * len(requests) > MAX_SENT:
            raise RequestError("The prompt is too large for this many choices", param="n")
        encoded += [encode_request(one, f"{answer_id}-{i}", capabilities) for i, one in enumerate(requests[1:], 1)]
        generation = Generation(self.triton.stream, encoded)
        self._generations.add(generation)
        return generation

    def end(self, generation: Generation) -> None:
        self._generations.discard(generation)
        generation.close()

    async def tokenize(self, *, text: str | None = None, messages: bytes | None = None) -> list[int]:
        """The ids that `preprocessing` makes of a text or of a chat."""
        request_id = f"tokenize-{uuid.uuid4().hex}"
        request = encode_tokenize(text=text, messages=messages, request_id=request_id)
        return decode_ids(await self.triton.infer(request, UNARY_TIMEOUT))

    async def detokenize(self, ids: Sequence[int]) -> str:
        """The text that `postprocessing` makes of ids."""
        if not ids:
            return ""
        request = encode_detokenize(ids, f"detokenize-{uuid.uuid4().hex}")
        return decode_text(await self.triton.infer(request, UNARY_TIMEOUT))
