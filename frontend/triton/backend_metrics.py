# SPDX-License-Identifier: Apache-2.0
"""The load of TensorRT-LLM's C++ backend, which it tells nobody but Triton's metrics endpoint."""

from collections.abc import Mapping

import httpx
from prometheus_client.parser import text_string_to_metric_families

from common.errors import RequestError

_PREFIX = "nv_trt_llm_"
# The backend's metric and its label -> the values of that label, and what they are in an engine's statistics.
_NAMES = {
    ("nv_trt_llm_request_metrics", "request_type"): {"scheduled": "running", "waiting": "waiting"},
    ("nv_trt_llm_kv_cache_block_metrics", "kv_cache_block_type"): {
        "fraction": "kv_cache_usage",
        "max": "kv_cache_blocks",
        "tokens_per": "kv_cache_block_size",
    },
}


class BackendMetrics:
    """Reads the endpoint. url: None if it is not known. Close it at the end."""

    def __init__(self, url: str | None) -> None:
        self._url = url
        # Made when it is needed, as it takes 20 ms and other engines need none. No proxy is for the way to Triton.
        self._http: httpx.AsyncClient | None = None

    async def read(self, model: str) -> Mapping[str, float]:
        """Return what a model of Triton tells, by the names of `common.engine_statistics`. Raises RequestError."""
        if self._url is None:
            return {}
        if self._http is None:
            self._http = httpx.AsyncClient(trust_env=False)
        try:
            answer = (await self._http.get(self._url)).raise_for_status()
            return parse(answer.text, model)
        except (httpx.HTTPError, ValueError) as error:
            raise RequestError(f"Triton's metrics cannot be read: {error!r}", kind="unavailable") from error

    async def close(self) -> None:
        """Close the connection."""
        if self._http is not None:
            await self._http.aclose()


def parse(text: str, model: str) -> dict[str, float]:
    """Find the backend's metrics of one model in Prometheus' text format; raises ValueError if it is not that."""
    own = "".join(f"{line}\n" for line in text.splitlines() if line.startswith(_PREFIX))
    found = {}
    for family in text_string_to_metric_families(own):
        for sample in family.samples:
            for (name, label), values in _NAMES.items():
                key = values.get(sample.labels.get(label, ""))
                if sample.name == name and key is not None and sample.labels.get("model") == model:
                    found[key] = sample.value
    return found
