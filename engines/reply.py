# SPDX-License-Identifier: Apache-2.0
"""The responses to one Triton request."""

from common.errors import RequestError
from engines.tensors import error_tensors
from python_backend.api import FINAL, InferenceResponse, ResponseSender, Tensor, pb_utils


class Reply:
    """Sends the responses of all generations of one request; the last one to end sets the flag that ends the request.

    errors_as_output: failures travel in the output `error` instead of a Triton error. Triton 2.51 never releases an
    ensemble request whose decoupled step fails while another step is at work: each such error would leak the request
    and hold up the shutdown until its time limit.
    client_id: which client sent the request, if it named itself.
    """

    def __init__(
        self,
        sender: ResponseSender,
        *,
        generations: int = 1,
        errors_as_output: bool = False,
        client_id: str | None = None,
    ) -> None:
        self.client_id = client_id
        self._sender = sender
        self._left = generations
        self._errors_as_output = errors_as_output

    @property
    def ended(self) -> bool:
        """Whether the last response of the request was sent."""
        return self._left <= 0

    def send(self, tensors: list[Tensor]) -> None:
        """Send one more response of a running generation."""
        self._sender.send(pb_utils.InferenceResponse(tensors))

    def end(self, tensors: list[Tensor]) -> None:
        """Send the last response of one generation. If it cannot be sent, `fail` must end the generation instead."""
        self._end(pb_utils.InferenceResponse(tensors))

    def end_empty(self) -> None:
        """End without a response."""
        self._end()

    def fail(self, error: RequestError, stream_id: int | None = None) -> None:
        """Send the failure of one generation. stream_id: that of its earlier responses, if there were any.

        The generation has ended after it, even if the failure cannot be sent.
        """
        left = self._left
        try:
            self._end(self._failure(error, stream_id))
        except Exception:
            # Triton waits for the end of the request, for which it needs no response.
            if left == 1:
                self._sender.send(flags=FINAL)
            raise
        finally:
            self._left = left - 1

    def abandoned(self) -> bool:
        """Whether the client cancelled its request or disconnected. Triton crashes if asked about an ended request."""
        return self._left > 0 and self._sender.is_cancelled()

    def _failure(self, error: RequestError, stream_id: int | None) -> InferenceResponse:
        if self._errors_as_output:
            return pb_utils.InferenceResponse(error_tensors(error.encode(), stream_id))
        return pb_utils.InferenceResponse(error=pb_utils.TritonError(error.encode()))

    def _end(self, response: InferenceResponse | None = None) -> None:
        flags = FINAL if self._left == 1 else 0
        if response is None:
            self._sender.send(flags=flags)
        else:
            self._sender.send(response, flags=flags)
        # Only now: the flag of the last generation may not come with the failure of another.
        self._left -= 1
