# SPDX-License-Identifier: Apache-2.0
"""Requests with tiles: checked, queued for the worker, answered with their rows."""

from functools import partial
from typing import Any

import torch
import triton_python_backend_utils as pb_utils

from common.errors import RequestError
from python_backend.tensors import error_response
from vision.options import VitOptions
from vision.runtimes.registry import build_runtime
from vision.towers.weights import read_config
from vision.worker import Job, TileWorker

FINAL = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL


class Images:
    """The tower of a checkpoint, behind its requests; raises ValueError that tells people why it cannot run."""

    def __init__(self, options: VitOptions) -> None:
        self._tile_size = int(read_config(options.vision)["image_size"])
        self._worker = TileWorker(build_runtime(options), options.tile_budget)

    def accept(self, tensor: Any, sender: Any, request_id: str) -> None:
        """Queue a request's `tiles`, uint8 [batch, n, s, s, 3]; the response is sent by the worker's thread.

        Raises RequestError for tiles of another shape.
        """
        # The request's own memory, which stays until its response is sent.
        tiles = torch.from_dlpack(tensor.to_dlpack())
        expected = (self._tile_size, self._tile_size, 3)
        if tiles.shape[2:] != expected or not tiles.shape[1]:
            found = list(tiles.shape[1:])
            raise RequestError(f"tiles must be [n, {', '.join(map(str, expected))}] with n >= 1, not {found}")
        # A client's own batch of requests is one job.
        done = partial(_answer, sender, tiles.shape[0])
        self._worker.submit(Job(tiles.flatten(0, 1), done, partial(_fail, sender), request_id=request_id))

    def close(self) -> None:
        """Answer what is queued."""
        self._worker.close()


def _answer(sender: Any, batch: int, table: torch.Tensor) -> None:
    table = table.unflatten(0, (batch, -1)).contiguous()
    tensor = pb_utils.Tensor.from_dlpack("prompt_embedding_table", table)
    sender.send(pb_utils.InferenceResponse([tensor]), flags=FINAL)


def _fail(sender: Any, error: RequestError) -> None:
    sender.send(error_response(error), flags=FINAL)
