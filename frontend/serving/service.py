# SPDX-License-Identifier: Apache-2.0
"""The objects that all requests of a process share: the connection to Triton, the limits, the image fetcher."""

import asyncio
import uuid
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

from tritonclient.grpc import service_pb2 as pb

from common.errors import RequestError
from frontend.errors import ApiError
from frontend.images import ImageFetcher
from frontend.serving.admission import Admission
from frontend.serving.generation import Generation
from frontend.serving.slow_readers import SlowReaders
from frontend.serving.write_throttle import WriteThrottle
from frontend.settings import Settings
from frontend.telemetry.request_record import current, triton_request_id
from frontend.triton.client import TritonClient
from frontend.triton.tensors import (
    EnsembleRequest,
    decode_ids,
    decode_text,
    decode_token_strs,
    encode_detokenize,
    encode_request,
    encode_tokenize,
)

MAX_SENT = 256 * 2**20  # bytes of one answer's requests to Triton together
UNARY_TIMEOUT = 30.0  # seconds for tokenizing or detokenizing
STOP_PATIENCE = 2.0  # seconds at shutdown for Triton to receive the last stop requests


class Service:
    """Generates, tokenizes and detokenizes for the endpoints of one process. Create it in a running event loop."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.triton = TritonClient(settings.triton_url, settings.owner)
        self.images = ImageFetcher(settings)
        self.write_throttle = WriteThrottle()
        self.admission = Admission(settings)
        self.slow_readers = SlowReaders(settings.stall_timeout, settings.max_backlog)
        self._monitoring: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Connect to Triton and start the background tasks."""
        self.triton.start()
        self._monitoring = asyncio.create_task(self.slow_readers.run())

    async def close(self) -> None:
        """Cancel the requests in progress, stop them in Triton, and disconnect."""
        self.admission.cancel_all()
        if self._monitoring is not None:
            self._monitoring.cancel()
            with suppress(asyncio.CancelledError):
                await self._monitoring
        await self.triton.close(STOP_PATIENCE)
        await self.images.close()

    def model_name(self, asked: str | None) -> str:
        """Return the served model's name for a request's `model`; None or "" means the first name.

        Raises ApiError for an unknown name.
        """
        names = self.settings.served_model_name
        if asked and asked not in names:
            raise ApiError("unknown_model", f"The model does not exist; served: {', '.join(names)}", param="model")
        current().model = name = asked or names[0]
        return name

    async def require_input(self, name: str, param: str) -> None:
        """Raise RequestError naming the request's field `param` if the ensemble has no input of this name."""
        if name not in (await self.triton.capabilities()).inputs:
            raise RequestError(f"'{param}' is not supported by the engine behind this server", param=param)

    async def generate(
        self, requests: Sequence[EnsembleRequest], answer_id: str, image_urls: Sequence[str] = ()
    ) -> Generation:
        """Check the requests against the loaded models, fetch their images, and encode them.

        image_urls: the images that every request carries. They are fetched last, because that takes time and memory.
        Returns a generation that is not yet started; the caller must close it. Raises RequestError.
        """
        capabilities, answer_id = await self.triton.capabilities(), triton_request_id(answer_id)
        for request in requests:
            capabilities.check(request)
        images = await self._fetch(image_urls)

        def encode(choice: int) -> pb.ModelInferRequest:
            request = replace(requests[choice], images=images) if images else requests[choice]
            return encode_request(request, f"{answer_id}-{choice}", capabilities, self.settings.owner)

        encoded = [encode(0)]
        # Every choice carries the whole prompt with its images.
        if encoded[0].ByteSize() * len(requests) > MAX_SENT:
            raise RequestError("The prompt is too large for this many choices", param="n")
        encoded += [encode(choice) for choice in range(1, len(requests))]
        return Generation(self.triton.stream, encoded)

    async def tokenize(
        self,
        *,
        text: str | None = None,
        messages: bytes | None = None,
        image_urls: Sequence[str] = (),
        token_strs: bool = False,
    ) -> tuple[list[int], list[str] | None]:
        """Return the token ids of a text, or of a chat as the `messages` tensor; `preprocessing` computes them.

        image_urls: the images of the chat, which are fetched. token_strs: also return the vocabulary's text of each id.
        """
        request_id = triton_request_id(f"tokenize-{uuid.uuid4().hex}")
        images = await self._fetch(image_urls)
        request = encode_tokenize(
            text=text, messages=messages, images=images, token_strs=token_strs, request_id=request_id
        )
        response = await self.triton.infer(request, UNARY_TIMEOUT)
        return decode_ids(response), decode_token_strs(response) if token_strs else None

    async def _fetch(self, image_urls: Sequence[str]) -> tuple[bytes, ...]:
        if not image_urls:
            return ()
        await self.require_input("images", "messages")
        return await self.images.fetch(image_urls)

    async def detokenize(self, ids: Sequence[int]) -> str:
        """Return the text of token ids; `postprocessing` computes it."""
        if not ids:
            return ""
        request = encode_detokenize(ids, triton_request_id(f"detokenize-{uuid.uuid4().hex}"))
        return decode_text(await self.triton.infer(request, UNARY_TIMEOUT))
