# SPDX-License-Identifier: Apache-2.0
"""One of the models that this process serves: its names, its settings, its limits, and what it is in Triton now."""

import asyncio
import uuid
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from typing import Any

from tritonclient.grpc import service_pb2 as pb

from common.adapters import Adapter
from common.errors import RequestError
from common.models_state import DRAINING, READY, ModelState
from common.served_model import EMBEDDING, ServedModelInfo
from frontend.errors import ApiError
from frontend.images import ImageFetcher
from frontend.serving.generation import Generation
from frontend.serving.request_memory import FREE, HeldMemory
from frontend.serving.slots import Slots
from frontend.settings import Settings
from frontend.telemetry import metrics
from frontend.telemetry.request_record import triton_request_id
from frontend.triton.client import TritonClient
from frontend.triton.deployment import Deployment
from frontend.triton.tensors import (
    EnsembleRequest,
    decode_ids,
    decode_text,
    decode_token_strs,
    encode_detokenize,
    encode_request,
    encode_tokenize,
    with_weights,
)

MAX_SENT = 256 * 2**20  # bytes of one answer's requests to Triton together
UNARY_TIMEOUT = 30.0  # seconds for tokenizing or detokenizing

# What a model may have of its own: fields of Settings.
_OWN_SETTINGS = tuple({one.name for one in fields(ServedModelInfo)} & {one.name for one in fields(Settings)})


class ServedModel:
    """A model that this process serves, or did. Create it in a running event loop, and `close` it at the end.

    settings: the process's settings with the model's own in place of them. names: what requests may call it; the first
    is the metrics' label `model`. state: as last told. slots: its limits, which outlive a reload. nameless: its names
    are those in the settings, unless its state has others.
    """

    def __init__(
        self, state: ModelState, settings: Settings, triton: TritonClient, images: ImageFetcher, *, nameless: bool
    ) -> None:
        self._process_settings = settings
        self._nameless = nameless
        self._triton = triton
        self._images = images
        self._retiring: dict[Deployment, asyncio.Task[None]] = {}
        self._deployment: Deployment | None = None
        self.state = state
        self.settings = self._own_settings()
        self.slots = Slots(*self._limits(), self.label)
        metrics.begin_at_zero(self.label)
        self._deploy()

    @property
    def names(self) -> tuple[str, ...]:
        """What requests may call the model, the main name first."""
        return self.settings.served_model_name

    @property
    def label(self) -> str:
        """The model's name in metrics."""
        return self.names[0]

    @property
    def kind(self) -> str:
        """What the model does: a value of common.served_model.KINDS."""
        return self.state.info.kind

    @property
    def deployment(self) -> Deployment:
        """What the model is in Triton now. Raises ApiError if it is not loaded any more."""
        if self._deployment is None or self.state.state not in (READY, DRAINING):
            raise ApiError("model_not_ready", f"The model '{self.label}' is not loaded at the moment", param="model")
        return self._deployment

    def update(self, state: ModelState) -> None:
        """Take what the model has become. Requests in progress stay where they run."""
        before, self.state = self.state, state
        if state.info != before.info:
            self.settings = self._own_settings()
            self.slots.resize(*self._limits())
        if (state.ensemble, state.engine, state.info.kind) != (before.ensemble, before.engine, before.info.kind) or (
            state.ready and not before.ready
        ):
            self._deploy()
        if before.state in (READY, DRAINING) and state.state not in (READY, DRAINING):
            # Its engine has died, or the time for the last requests is over: nothing in it will ever be answered.
            error = RequestError(f"The model '{self.label}' was unloaded before it had answered", kind="unavailable")
            for deployment in (self._deployment, *self._retiring):
                if deployment is not None:
                    deployment.fail_requests(error)
                    # It is not probed for its return: a new load has a deployment of its own.
                    deployment.health.forget()

    async def close(self) -> None:
        """Stop monitoring Triton's models."""
        for task in list(self._retiring.values()):
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        if self._deployment is not None:
            await self._deployment.close()

    async def readiness(self) -> dict[str, bool]:
        """Return whether each of its Triton models can serve; nothing if it takes no requests."""
        return {} if self._deployment is None or not self.state.ready else await self._deployment.readiness()

    async def context_length(self) -> int | None:
        """Return the context length in tokens; None if it is not known."""
        if self.settings.max_model_len is None and self.kind == EMBEDDING and self._deployment is not None:
            return await self._deployment.context_length()
        return self.settings.max_model_len

    async def require_input(self, name: str, param: str) -> None:
        """Raise RequestError naming the request's field `param` if the ensemble has no input of this name."""
        if name not in (await self.deployment.capabilities()).inputs:
            raise RequestError(f"'{param}' is not supported by the engine behind this server", param=param)

    async def generate(
        self, requests: Sequence[EnsembleRequest], answer_id: str, memory: HeldMemory, image_urls: Sequence[str] = ()
    ) -> Generation:
        """Check the requests against the loaded models, fetch their images, and encode them.

        memory: in which their room is reserved. image_urls: the images that every request carries. They are fetched
        last, because that takes time and memory.
        Returns a generation that is not yet started; the caller must close it. Raises RequestError.
        """
        capabilities, answer_id = await self.deployment.capabilities(), triton_request_id(answer_id)
        for request in requests:
            capabilities.check(request)
        images = await self._fetch(image_urls, memory)
        deployment = self.deployment
        adapter_id = requests[0].lora_task_id
        # NVIDIA's C++ backend gets an adapter's weights with its first request, and keeps them.
        sends_weights = (
            adapter_id is not None and not capabilities.python_engine and deployment.adapters.first_use(adapter_id)
        )

        def encode(choice: int) -> pb.ModelInferRequest:
            request = replace(requests[choice], images=images) if images else requests[choice]
            owner = self._process_settings.owner
            message = encode_request(request, f"{answer_id}-{choice}", capabilities, owner, deployment.ensemble)
            return with_weights(message) if sends_weights else message

        encoded: list[pb.ModelInferRequest] = []
        size = 0
        for choice in range(len(requests)):
            # Every choice carries the whole prompt with its images.
            encoded.append(encode(choice))
            size += encoded[-1].ByteSize()
            if size > MAX_SENT:
                raise RequestError("The prompt is too large for this many choices", param="n")
            if size > FREE:
                await memory.reserve_sent(size)
        return Generation(self._triton.stream, deployment, encoded)

    async def tokenize(
        self,
        *,
        text: str | None = None,
        messages: bytes | None = None,
        memory: HeldMemory,
        image_urls: Sequence[str] = (),
        add_special_tokens: bool | None = None,
        token_strs: bool = False,
    ) -> tuple[list[int], list[str] | None]:
        """Return the token ids of a text, or of a chat as the `messages` tensor; `preprocessing` computes them.

        memory: in which their room is reserved. image_urls: the images of the chat, which are fetched.
        add_special_tokens: such as BOS; None for a text, not for a chat, whose template writes them. token_strs: also
        return the vocabulary's text of each id.
        """
        request_id = triton_request_id(f"tokenize-{uuid.uuid4().hex}")
        images = await self._fetch(image_urls, memory)
        request = encode_tokenize(
            text=text,
            messages=messages,
            images=images,
            add_special_tokens=add_special_tokens,
            token_strs=token_strs,
            request_id=request_id,
            preprocessing=self.deployment.preprocessing,
        )
        response = await self._triton.infer(request, UNARY_TIMEOUT)
        return decode_ids(response), decode_token_strs(response) if token_strs else None

    async def detokenize(self, ids: Sequence[int]) -> str:
        """Return the text of token ids; `postprocessing` computes it."""
        if not ids:
            return ""
        request_id = triton_request_id(f"detokenize-{uuid.uuid4().hex}")
        request = encode_detokenize(ids, request_id, self.deployment.postprocessing)
        return decode_text(await self._triton.infer(request, UNARY_TIMEOUT))

    async def _fetch(self, image_urls: Sequence[str], memory: HeldMemory) -> tuple[bytes, ...]:
        if not image_urls:
            return ()
        await self.require_input("images", "messages")
        return await self._images.fetch(image_urls, memory.take_picture)

    def _deploy(self) -> None:
        """Send requests to where the model now is."""
        if not self.state.ready:
            return
        made = Deployment(self._triton, self.state.ensemble, self.state.engine, self.kind)
        before, self._deployment = self._deployment, made
        made.start()
        if before is not None:
            self._retiring[before] = task = asyncio.create_task(before.retire(made))
            task.add_done_callback(lambda _: self._retiring.pop(before))

    def _own_settings(self) -> Settings:
        info = self.state.info
        values = {name: getattr(info, name) for name in _OWN_SETTINGS}
        own: dict[str, Any] = {name: value for name, value in values.items() if value not in (None, ())}
        if info.names:
            own["served_model_name"] = info.names
        elif not self._nameless:
            own["served_model_name"] = (self.state.ensemble,)
        return replace(self._process_settings, **own)

    def _limits(self) -> tuple[int, int, float]:
        return self.settings.max_in_flight, self.settings.max_queued, self.settings.queue_timeout


@dataclass(frozen=True, slots=True)
class RequestedModel:
    """The model that one request is for.

    name: what the request calls it, which the answer repeats. label: the value of the metrics' label `model`.
    adapter: the LoRA adapter that the name is of, if it is one's.
    """

    served: ServedModel
    name: str
    label: str
    adapter: Adapter | None = None

    @property
    def lora_task_id(self) -> int | None:
        """The ensemble's input that chooses the adapter; None for the model itself."""
        return None if self.adapter is None else self.adapter.id
