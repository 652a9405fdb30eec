# SPDX-License-Identifier: Apache-2.0
"""Requests are counted in the engines, by Triton's metrics."""

from scripts.launcher.model_processes import requests_in

METRICS = """# HELP triton_chat_engine_running Requests that the engine is processing
# TYPE triton_chat_engine_running gauge
triton_chat_engine_running{model="one.tensorrt_llm"} 3
triton_chat_engine_running{model="two.g2.tensorrt_llm"} 0
triton_chat_engine_waiting{model="one.tensorrt_llm"} 2
triton_chat_engine_preemptions_total{model="one.tensorrt_llm"} 7
nv_trt_llm_request_metrics{model="three.tensorrt_llm",request_type="active",version="1"} 4
nv_trt_llm_request_metrics{model="three.tensorrt_llm",request_type="scheduled",version="1"} 4
nv_inference_pending_request_count{model="one",version="1"} 9
"""


def test_running_and_waiting_requests_count() -> None:
    assert requests_in(METRICS) == {"one.tensorrt_llm": 5, "two.g2.tensorrt_llm": 0, "three.tensorrt_llm": 4}
    assert requests_in("") == {}
