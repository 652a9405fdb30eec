# SPDX-License-Identifier: Apache-2.0
"""The end of a generation at the moment in which its requests are to be sent again."""

import asyncio
from typing import Any

import grpc
import pytest
from tritonclient.grpc import service_pb2 as pb

from common.errors import RequestError
from frontend.errors import AdapterNotCached, ClientGone
from frontend.serving.generation import Generation
from frontend.triton.receiver import Receiver
from frontend.triton.response_queue import ResponseQueue
from frontend.triton.stream import TritonStream


class OneStream:
    """A stream that notes what is sent and stopped. queue: of the last requests."""

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.stopped: list[str] = []
        self.connecting = asyncio.Event()
        self.connecting.set()
        self.queue: ResponseQueue

    async def submit(self, requests: list[pb.ModelInferRequest], queue: ResponseQueue, *_: Any) -> None:
        await self.connecting.wait()
        self.queue = queue
        self.sent += [request.id for request in requests]

    def cancel(self, request_id: str) -> None:
        self.stopped.append(request_id)


async def begun(stream: OneStream) -> tuple[Generation, "asyncio.Task[Any]"]:
    """A generation whose first responses are waited for."""
    generation = Generation(stream, None, [pb.ModelInferRequest(id="a")])  # type: ignore[arg-type] # a fake
    await generation.start()
    reading = asyncio.create_task(generation.next())
    await asyncio.sleep(0)
    return generation, reading


async def test_an_end_that_comes_just_after_the_backends_refusal_is_not_lost() -> None:
    stream = OneStream()
    generation, reading = await begun(stream)
    stream.queue.fail(AdapterNotCached())
    generation.fail(ClientGone())
    async with asyncio.timeout(5):
        with pytest.raises(ClientGone):
            await reading
    assert stream.sent == ["a"]


async def test_an_end_while_the_requests_wait_to_be_sent_again_is_not_lost() -> None:
    stream = OneStream()
    generation, reading = await begun(stream)
    stream.connecting.clear()
    stream.queue.fail(AdapterNotCached())
    await asyncio.sleep(0)
    generation.fail(ClientGone())
    stream.connecting.set()
    async with asyncio.timeout(5):
        with pytest.raises(ClientGone):
            await reading
    generation.close()
    assert stream.stopped[-1] == stream.sent[-1] == "a-weights"


async def test_without_an_end_the_requests_are_sent_again() -> None:
    stream = OneStream()
    _, reading = await begun(stream)
    stream.queue.fail(AdapterNotCached())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert stream.sent == ["a", "a-weights"] and not reading.done()
    reading.cancel()


async def test_requests_that_fail_together_have_errors_of_their_own() -> None:
    """The error handler clears the frames of an error's traceback, and Python 3.11 would end another request's."""
    channel = grpc.aio.insecure_channel("127.0.0.1:1")
    stream, target, queues = TritonStream(channel, print, print, None), object(), [ResponseQueue(), ResponseQueue()]
    for number, queue in enumerate(queues):
        stream._receivers[str(number)] = Receiver(queue, 0, target, 0.0)  # type: ignore[arg-type]
    stream.fail_all(target, RequestError("lost", kind="unavailable"), answered=True, stop=False)  # type: ignore[arg-type]
    errors = [queue._error for queue in queues]
    await channel.close()
    assert [str(error) for error in errors] == ["lost", "lost"] and errors[0] is not errors[1]
