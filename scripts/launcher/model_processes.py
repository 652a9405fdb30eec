# SPDX-License-Identifier: Apache-2.0
"""What the launcher asks of a running tritonserver and of the processes of its models, besides loading them."""

import re
from collections.abc import Callable, Collection
from typing import Any

import numpy as np
import numpy.typing as npt
import tritonclient.grpc as grpc
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from common.model_names import EMBEDDING, role
from common.processes import Process, children, command_line, descendants, is_resource_tracker, kill, still_runs
from common.versions import BUILD_INFO
from scripts.launcher.readiness import answers_ok
from scripts.launcher.repository import Call, http_answer
from scripts.launcher.stubs import model_of

_TIMEOUT_S = 10.0
# gRPC would ask a proxy of the environment, even for this machine's own address.
_NO_PROXY = (("grpc.enable_http_proxy", 0),)
# The inputs of a stop.
_STOP = {
    "input_lengths": np.int32(1),
    "request_output_len": np.int32(1),
    "stop": np.True_,
    "streaming": np.True_,
}
# A Python model starts it, for tritonserver (python_backend/watchdog.py).
WATCHDOG = "python_backend.watchdog"
# Gauges that together count the requests in an engine: those of this project's engines, and the C++ backend's.
_REQUESTS = re.compile(
    r"^(?:triton_chat_engine_(?:running|waiting)|nv_trt_llm_request_metrics)"
    r'\{(?P<labels>(?=[^}]*model="(?P<model>[^"]*)")[^}]*)\} (?P<value>[0-9.e+]+)$',
    re.MULTILINE,
)


class ModelProcesses:
    """The processes of one tritonserver after the other. tritonserver: returns the id of the one that runs."""

    def __init__(self, http_url: str, grpc_url: str, metrics_url: str, tritonserver: Callable[[], int]) -> None:
        self._http_url, self._grpc_url, self._metrics_url = http_url, grpc_url, metrics_url
        self._tritonserver = tritonserver
        # By id: the process, and the Triton model that started it.
        self._known: dict[int, tuple[Process, str]] = {}

    def live(self) -> Call:
        """Ask whether tritonserver takes calls, as the call's result."""
        return Call(lambda: answers_ok(f"{self._http_url}/v2/health/live"), "live")

    def requests(self) -> Call:
        """Ask for the number of requests in each engine, by its Triton model, as the call's result.

        They are counted where they run, so that those of Triton's own clients count as well.
        """
        return Call(lambda: requests_in(_get(self._metrics_url)), "requests")

    def cancel_all(self, engine: str) -> Call:
        """Cancel every request in an engine."""
        return Call(lambda: _stop_all(self._grpc_url, engine), f"cancel-{engine}")

    def children(self) -> set[int]:
        """Ids of tritonserver's own processes, dead ones included that it has not waited for."""
        return {process.pid for process in children(self._tritonserver())}

    def record(self) -> None:
        """Remember which processes the models have started: those of an engine outlive it if it is killed."""
        self._known = {pid: known for pid, known in self._known.items() if still_runs(known[0])}
        for process in descendants(self._tritonserver()):
            known = self._known.get(process.parent)
            model = model_of(process.pid) if process.is_stub else known and known[1]
            if model and process.alive and process.pid not in self._known:
                self._known[process.pid] = process, model

    def alive(self, models: Collection[str]) -> bool:
        """Whether a process of these Triton models lives."""
        return bool(self._of(models))

    def kill(self, models: Collection[str]) -> None:
        """Kill the processes of these Triton models, with those that they have started."""
        for pid in self._of(models):
            kill(pid)

    def _of(self, models: Collection[str]) -> list[int]:
        self.record()
        return [pid for pid, (_, model) in self._known.items() if model in models and not _outlives_models(pid)]


def _outlives_models(pid: int) -> bool:
    """Whether a process is not its model's: tritonserver's watchdog, or a resource tracker, which ends by itself."""
    return is_resource_tracker(pid) or WATCHDOG in command_line(pid)


def requests_in(metrics: str) -> dict[str, float]:
    """The number of requests in each engine, by its Triton model, from the text of Triton's metrics."""
    found: dict[str, float] = {}
    for gauge in _REQUESTS.finditer(metrics):
        if gauge[0].startswith("nv_") and 'request_type="active"' not in gauge["labels"]:
            continue
        found[gauge["model"]] = found.get(gauge["model"], 0.0) + float(gauge["value"])
    return found


def _get(url: str) -> str:
    status, text = http_answer(url, _TIMEOUT_S)
    if status != 200:
        raise OSError(f"{url} answered {status}")
    return text


def _stop_all(grpc_url: str, engine: str) -> None:
    """Ask an engine to cancel all of its requests; raises OSError if it does not answer."""
    everything = {"all_requests": True}
    with grpc.InferenceServerClient(grpc_url, channel_args=_NO_PROXY) as client:
        try:
            if role(engine) == EMBEDDING:
                # Triton takes no request without an input.
                inputs = [_tensor("dimensions", np.array([1], np.int32))]
                outputs = [grpc.InferRequestedOutput(BUILD_INFO)]
                client.infer(engine, inputs, outputs=outputs, client_timeout=_TIMEOUT_S, parameters=everything)
            else:
                inputs = [_tensor(name, np.array([[value]])) for name, value in _STOP.items()]
                client.start_stream(lambda result, error: None, stream_timeout=_TIMEOUT_S)
                client.async_stream_infer(engine, inputs, parameters=everything)
                client.stop_stream()
        except InferenceServerException as error:
            raise OSError(str(error)) from error


def _tensor(name: str, array: npt.NDArray[Any]) -> grpc.InferInput:
    tensor = grpc.InferInput(name, array.shape, np_to_triton_dtype(array.dtype))
    tensor.set_data_from_numpy(array)
    return tensor
