# SPDX-License-Identifier: Apache-2.0
"""Triton model `vit`: tiles in, rows of the prompt embedding table out. A request without tiles is passed on."""

import locale
from typing import Any

# The stub leaves the C locale, in which open() reads ASCII; the packages of the runtimes read UTF-8 files at import.
locale.setlocale(locale.LC_ALL, "C.UTF-8")

import triton_python_backend_utils as pb_utils  # noqa: E402

from common.errors import RequestError  # noqa: E402
from python_backend.config import ModelParameters  # noqa: E402
from python_backend.tensors import error_response  # noqa: E402
from vision.options import read_options  # noqa: E402

FINAL = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL


class TritonPythonModel:
    """Triton's interface. Responses to images are sent later, so that text never waits for them."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the tower, if the checkpoint has one; raises ValueError with a message for people where it cannot."""
        options = read_options(ModelParameters.from_config(args["model_config"]))
        self._images = None
        if options.vision.is_dir():
            # Here, not above: a checkpoint without a tower needs no torch in this process.
            from vision.images import Images

            self._images = Images(options)

    def execute(self, requests: list[Any]) -> list[Any] | None:
        """A response without tensors for each text request; images are queued and answered later."""
        tiles = [_tiles(request) for request in requests]
        if all(tensor is None for tensor in tiles):
            # Returned, as it costs less than sending and nearly every batch is like this: Triton's batcher keeps
            # requests with and without an optional input apart.
            return [pb_utils.InferenceResponse([]) for _ in requests]
        for request, tensor in zip(requests, tiles, strict=True):
            self._accept(request.get_response_sender(), tensor, request.request_id())
        return None

    def finalize(self) -> None:
        """Answer what is queued."""
        if self._images is not None:
            self._images.close()

    def _accept(self, sender: Any, tiles: Any, request_id: str) -> None:
        try:
            if tiles is None:
                sender.send(pb_utils.InferenceResponse([]), flags=FINAL)
            elif self._images is None:
                raise RequestError("this model takes no images: its checkpoint has no vision tower", param="messages")
            else:
                self._images.accept(tiles, sender, request_id)
        except RequestError as error:
            sender.send(error_response(error), flags=FINAL)


def _tiles(request: Any) -> Any:
    """The request's input `tiles`, or None."""
    return next((tensor for tensor in request.inputs() if tensor.name() == "tiles"), None)
