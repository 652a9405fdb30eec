# SPDX-License-Identifier: Apache-2.0
"""Answer the requests of the Triton model `vit`, with or without tiles."""

from common.errors import RequestError
from common.logs import about
from python_backend.api import FINAL, InferenceRequest, InferenceResponse, ResponseSender, Tensor, pb_utils
from python_backend.logs import model_logger
from python_backend.tensors import error_response
from vision.options import VitOptions

log = model_logger("vit", verbose=True)


class VisionService:
    """The tower of a checkpoint, if it has one. Images are answered later, so that text never waits for them."""

    def __init__(self, options: VitOptions) -> None:
        """Load the tower. Raises ValueError with the reason if it cannot run."""
        self._images = None
        if options.vision.is_dir():
            # Imported here, because a checkpoint without a tower needs no torch in this process.
            from vision.images import ImageRequests

            self._images = ImageRequests(options)

    def execute(self, requests: list[InferenceRequest]) -> list[InferenceResponse] | None:
        """Return a response without tensors for each text request, or None if the responses are sent separately."""
        tiles = [_find_tiles(request) for request in requests]
        if all(tensor is None for tensor in tiles):
            # Returned, as it costs less than sending and nearly every batch is like this: Triton's batcher keeps
            # requests with and without an optional input apart.
            return [pb_utils.InferenceResponse([]) for _ in requests]
        for request, tensor in zip(requests, tiles, strict=True):
            self._accept(request.get_response_sender(), tensor, request.request_id())
        return None

    def close(self) -> None:
        """Answer the queued requests, then stop."""
        if self._images is not None:
            self._images.close()

    def _accept(self, sender: ResponseSender, tiles: Tensor | None, request_id: str) -> None:
        try:
            if tiles is None:
                sender.send(pb_utils.InferenceResponse([]), flags=FINAL)
            elif self._images is None:
                raise RequestError("this model takes no images: its checkpoint has no vision tower", param="messages")
            else:
                self._images.accept(tiles, sender, request_id)
        except RequestError as error:
            sender.send(error_response(error), flags=FINAL)
        except Exception:
            # Without an answer Triton would wait for ever, for this request and for the rest of its batch.
            log.exception("a request failed", extra=about(request_id))
            failure = RequestError("the vision tower failed on this request", kind="internal")
            sender.send(error_response(failure), flags=FINAL)


def _find_tiles(request: InferenceRequest) -> Tensor | None:
    """The request's input `tiles`, if it has one."""
    return next((tensor for tensor in request.inputs() if tensor.name() == "tiles"), None)
