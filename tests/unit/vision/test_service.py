# SPDX-License-Identifier: Apache-2.0
"""Requests to the Triton model `vit`: text passes through, images get the tower's rows, invalid ones an error."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from common.errors import RequestError
from python_backend.api import FINAL, pb_utils
from tests.support.vision_towers import SIZE, random_tiles, write_internvit
from vision.options import VitOptions
from vision.service import VisionService
from vision.towers.registry import load_tower

# Tokens of one tile, and the language model's hidden size.
TOKENS, HIDDEN = 4, 40


class Request:
    """A request with or without tiles, which is its own response sender."""

    def __init__(self, tiles: Any = None) -> None:
        self._inputs = [pb_utils.Tensor("input_lengths", np.array([[1]], np.int32))]
        if tiles is not None:
            self._inputs.append(pb_utils.Tensor("tiles", tiles))
        self.sent: list[Any] = []
        self._ended = threading.Event()

    def inputs(self) -> list[Any]:
        return self._inputs

    def request_id(self) -> str:
        return "r"

    def get_response_sender(self) -> "Request":
        return self

    def send(self, response: Any, flags: int) -> None:
        assert flags == FINAL
        self.sent.append(response)
        self._ended.set()

    def response(self) -> Any:
        assert self._ended.wait(30)
        (response,) = self.sent
        return response

    def error(self) -> RequestError:
        found = RequestError.decode(self.response().error.message())
        assert found is not None
        return found


@pytest.fixture
def service(tmp_path: Path) -> Iterator[VisionService]:
    write_internvit(tmp_path, "300m")
    made = VisionService(VitOptions("torch", tmp_path / "vision", device="cpu"))
    yield made
    made.close()


def test_text_is_answered_without_tensors(service: VisionService) -> None:
    requests = [Request(), Request()]
    responses = service.execute(requests)
    assert responses is not None
    assert [response.output_tensors for response in responses] == [[], []]
    assert not requests[0].sent


def test_images_are_answered_with_the_towers_rows(service: VisionService, tmp_path: Path) -> None:
    tiles = random_tiles(4)
    text, single, batched = Request(), Request(tiles[:1][None]), Request(tiles.view(2, 2, SIZE, SIZE, 3))
    assert service.execute([text, single, batched]) is None
    assert text.response().output_tensors == []
    with torch.inference_mode():
        expected = load_tower(tmp_path / "vision", "auto", torch.device("cpu"))(tiles)
    for request, shape in ((single, (1, TOKENS, HIDDEN)), (batched, (2, 2 * TOKENS, HIDDEN))):
        (tensor,) = request.response().output_tensors
        rows = tensor.as_numpy()
        assert tensor.name() == "prompt_embedding_table"
        assert rows.shape == shape and rows.dtype == torch.bfloat16 and rows.is_contiguous()
        flat = expected[: rows.numel() // (TOKENS * HIDDEN)].flatten(0, 1)
        torch.testing.assert_close(rows.flatten(0, 1).float(), flat, rtol=2**-7, atol=1e-2)


@pytest.mark.parametrize("shape", [(1, 1, SIZE, SIZE + 1, 3), (1, 0, SIZE, SIZE, 3)])
def test_tiles_of_another_shape_are_refused(service: VisionService, shape: tuple[int, ...]) -> None:
    request = Request(torch.zeros(shape, dtype=torch.uint8))
    assert service.execute([request]) is None
    assert str(request.error()) == f"tiles must be [n, 56, 56, 3] with n >= 1, not {list(shape[1:])}"


def test_a_batch_of_no_tiles_is_refused(service: VisionService) -> None:
    request = Request(torch.zeros((0, 1, SIZE, SIZE, 3), dtype=torch.uint8))
    assert service.execute([request]) is None
    assert (request.error().kind, request.error().param) == ("invalid_request", "tiles")


def test_without_a_tower_images_are_refused_and_text_is_not(tmp_path: Path) -> None:
    service = VisionService(VitOptions("torch", tmp_path / "vision"))
    text, image = Request(), Request(random_tiles(1)[None])
    assert service.execute([text, image]) is None
    assert text.response().output_tensors == []
    assert (image.error().param, "no vision tower" in str(image.error())) == ("messages", True)
    service.close()


def test_a_request_that_cannot_be_read_ends_and_fails_no_other(service: VisionService) -> None:
    broken, fine = Request(object()), Request(random_tiles(1)[None])
    assert service.execute([broken, fine]) is None
    assert broken.error().kind == "internal"
    assert fine.response().output_tensors
