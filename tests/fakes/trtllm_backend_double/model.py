# SPDX-License-Identifier: Apache-2.0
"""A double of NVIDIA's C++ backend `tensorrtllm` (TensorRT-LLM 1.2.1), loaded with the same config.

It answers from a script and otherwise behaves like the backend: only the contract's tensors, no finish reason, the end of
an answer only as Triton's flag, errors as Triton errors, stops by request id. The engine's folder has the script and
`double.json` (see DoubleOptions).
"""

import asyncio
import json
import locale
import threading
from collections import defaultdict
from typing import Any

locale.setlocale(locale.LC_ALL, "C.UTF-8")

import triton_python_backend_utils as pb_utils  # noqa: E402
from executor import Executor, ExecutorError  # noqa: E402
from wire import Call, RequestInputs  # noqa: E402

FINAL = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL
STATISTICS_PERIOD_S = 0.1


class TritonPythonModel:
    """Triton's interface."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read the backend's parameters; unset ones are empty."""
        config = json.loads(args["model_config"])
        parameters = {name: value["string_value"] for name, value in config["parameters"].items()}
        queue = config["dynamic_batching"]["default_queue_policy"]["max_queue_size"]
        self._excludes_input = parameters["exclude_input_in_output"] == "true"
        self._cancel_period_s = int(parameters["cancellation_check_period_ms"]) / 1000
        self._executor = Executor(parameters, int(queue))
        self._tasks: dict[str, dict[asyncio.Task[None], Call]] = defaultdict(dict)
        family = pb_utils.MetricFamily
        self._family = family(
            name="nv_trt_llm_request_metrics", description="TRT LLM request metrics", kind=family.GAUGE
        )
        labels = {"model": config["name"], "version": args["model_version"]}
        kinds = ("active", "scheduled", "waiting")
        self._counts = {kind: self._family.Metric(labels=labels | {"request_type": kind}) for kind in kinds}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="executor", daemon=True)
        self._thread.start()
        self._loop.call_soon_threadsafe(self._watch)
        self._loop.call_soon_threadsafe(self._report)

    def execute(self, requests: list[Any]) -> None:
        """Pass requests to the loop, which sends all responses (decoupled)."""
        for request in requests:
            self._loop.call_soon_threadsafe(self._accept, request, request.get_response_sender())

    def finalize(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        # The stub crashes if metrics are deleted when Python ends.
        del self._counts, self._family

    def _accept(self, request: Any, sender: Any) -> None:
        inputs, request_id = RequestInputs(request), request.request_id()
        if inputs.scalar("stop", False):
            self._stop(request_id, sender)
            return
        names = set(request.requested_output_names())
        try:
            generations = self._executor.enqueue(inputs)
        except ExecutorError as error:
            _fail(sender, str(error))
            return
        call = Call(inputs, names, sender, generations, self._excludes_input)
        for generation in generations:
            task = self._loop.create_task(self._run(call, generation))
            self._tasks[request_id][task] = call
            task.add_done_callback(lambda done: self._forget(request_id, done))

    async def _run(self, call: Call, generation: Any) -> None:
        """Stream one executor request; its end is always flagged."""
        try:
            async for result in self._executor.run(generation):
                call.send(result)
        except Exception as error:
            call.fail(f"Executor failed process requestId {generation.number} due to the following error: {error}")

    def _stop(self, request_id: str, sender: Any) -> None:
        if not request_id:
            _fail(sender, "Trying to stop a request but request ID is not provided")
            return
        for call in self._tasks.get(request_id, {}).values():
            call.cancel()
        # For a request that has ended this has no effect.
        sender.send(pb_utils.InferenceResponse([]), flags=FINAL)

    def _forget(self, request_id: str, task: "asyncio.Task[None]") -> None:
        del self._tasks[request_id][task]
        if not self._tasks[request_id]:
            del self._tasks[request_id]

    def _watch(self) -> None:
        """Check the requests' cancellation flags, which ensembles do not set."""
        for calls in list(self._tasks.values()):
            for call in calls.values():
                if call.abandoned():
                    call.cancel()
        self._loop.call_later(self._cancel_period_s, self._watch)

    def _report(self) -> None:
        running = sum(map(len, self._tasks.values()))
        for kind, count in (("active", running), ("scheduled", running), ("waiting", 0)):
            self._counts[kind].set(count)
        self._loop.call_later(STATISTICS_PERIOD_S, self._report)


def _fail(sender: Any, text: str) -> None:
    sender.send(pb_utils.InferenceResponse(error=pb_utils.TritonError(text)), flags=FINAL)
