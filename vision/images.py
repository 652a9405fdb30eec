# SPDX-License-Identifier: Apache-2.0
"""Check the tiles of image requests, queue them for the vision tower and answer with their rows."""

from functools import partial

import torch
from torch.utils.dlpack import from_dlpack

from common.errors import RequestError
from python_backend.api import FINAL, ResponseSender, Tensor, pb_utils
from python_backend.tensors import error_response
from vision.options import VitOptions
from vision.runtimes.registry import build_runtime
from vision.towers.weights import read_config
from vision.worker import Job, TileWorker


class ImageRequests:
    """The image requests of one checkpoint's vision tower."""

    def __init__(self, options: VitOptions) -> None:
        """Load the tower and start its worker. Raises ValueError with the reason if it cannot run."""
        self._tile_size = int(read_config(options.vision)["image_size"])
        self._worker = TileWorker(build_runtime(options), options.tile_budget)

    def accept(self, tensor: Tensor, sender: ResponseSender, request_id: str) -> None:
        """Queue a request's tiles, uint8 [batch, n, s, s, 3]; the worker's thread sends the response.

        Raises RequestError if the tiles have another shape.
        """
        # Shares the request's memory, which stays valid until its response is sent.
        tiles = from_dlpack(tensor.to_dlpack())
        if not tiles.shape[0]:  # Triton (24.10) refuses most batches of 0 itself.
            raise RequestError("'tiles' has no row", param="tiles")
        expected = (self._tile_size, self._tile_size, 3)
        if tiles.shape[2:] != expected or not tiles.shape[1]:
            found = list(tiles.shape[1:])
            raise RequestError(f"tiles must be [n, {', '.join(map(str, expected))}] with n >= 1, not {found}")
        # A request that the client has batched itself is one job.
        done = partial(_send_rows, sender, tiles.shape[0])
        self._worker.submit(Job(tiles.flatten(0, 1), done, partial(_send_error, sender), request_id=request_id))

    def close(self) -> None:
        """Answer the queued requests, then stop the worker."""
        self._worker.close()


def _send_rows(sender: ResponseSender, batch: int, table: torch.Tensor) -> None:
    table = torch.unflatten(table, 0, (batch, -1)).contiguous()
    tensor = pb_utils.Tensor.from_dlpack("prompt_embedding_table", table)
    sender.send(pb_utils.InferenceResponse([tensor]), flags=FINAL)


def _send_error(sender: ResponseSender, error: RequestError) -> None:
    sender.send(error_response(error), flags=FINAL)
