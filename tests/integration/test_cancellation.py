# SPDX-License-Identifier: Apache-2.0
"""A client that disconnects frees the engine, by the engine's own count of requests."""

import httpx
import pytest

from tests.support.waiting import PATIENCE_S, running_requests, wait_until

LONG = {
    "messages": [{"role": "user", "content": "Tell me a very long story."}],
    "max_tokens": 4000,
    "ignore_eos": True,
    "temperature": 0,
}


def test_hanging_up_mid_stream(stack):
    wait_until(lambda: running_requests(stack) == 0, "an idle engine")
    with httpx.stream("POST", f"{stack.url}/v1/chat/completions", json=LONG | {"stream": True}, timeout=60) as response:
        lines = response.iter_lines()
        for _ in range(9):
            next(lines)
        wait_until(lambda: running_requests(stack) == 1, "the request is seen running")
    wait_until(lambda: running_requests(stack) == 0, "the engine drops a stream whose client left", 20)


def test_hanging_up_on_a_whole_answer(stack):
    wait_until(lambda: running_requests(stack) == 0, "an idle engine")
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{stack.url}/v1/chat/completions", json=LONG, timeout=httpx.Timeout(PATIENCE_S, read=2))
    wait_until(lambda: running_requests(stack) == 0, "the engine drops a whole answer whose client left", 20)


def test_a_request_deadline(stack):
    response = httpx.post(
        f"{stack.url}/v1/chat/completions", json=LONG, headers={"X-Request-Timeout": "1"}, timeout=PATIENCE_S
    )
    assert response.status_code in (408, 504)
    wait_until(lambda: running_requests(stack) == 0, "the engine drops a request past its deadline", 20)
