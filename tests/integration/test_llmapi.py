# SPDX-License-Identifier: Apache-2.0
"""A real Triton whose `tensorrt_llm` model has the adapter of TensorRT-LLM's LLM API, with a double of that package."""

import json
import os
import shutil

import httpx
from openai import OpenAI

from scripts.launcher import Stack
from tests.support.scripted import ROOT, check_clean_stop, scripted_line


def test_a_stack_on_the_llm_api(tmp_path, qwen3_tokenizer_dir):
    arguments = scripted_line("qwen3", qwen3_tokenizer_dir, tmp_path)
    at = arguments.index("--script")
    script = arguments[at + 1]
    del arguments[at : at + 2]
    package = ROOT / "tests" / "fakes" / "llmapi_double" / "tensorrt_llm"
    shutil.copytree(package, tmp_path / "model_repository" / "tensorrt_llm" / "1" / "tensorrt_llm")
    text = "<think>\nShort.\n</think>\n\nHello there, good day."
    (tmp_path / "script.json").write_text(json.dumps([{"text": text}]))
    environment = os.environ | {"TENSORRT_LLM_DOUBLE": script}
    with Stack([*arguments, "--engine", "llmapi", "--max-num-seqs", "8"], environment=environment) as stack:
        client = OpenAI(base_url=f"{stack.url}/v1", api_key="none", max_retries=0)
        asked = {"model": stack.model_names[0], "messages": [{"role": "user", "content": "Hello"}]}
        whole = client.chat.completions.create(**asked)
        assert whole.choices[0].message.content == "Hello there, good day."
        assert whole.choices[0].finish_reason == "stop"
        pieces = list(client.chat.completions.create(**asked, stream=True, logprobs=True, top_logprobs=2))
        assert "".join(piece.choices[0].delta.content or "" for piece in pieces) == "Hello there, good day."
        stopped = client.chat.completions.create(**asked, stop=["good"])
        assert stopped.choices[0].message.content == "Hello there, "
        assert client.chat.completions.create(**asked, max_tokens=3).choices[0].finish_reason == "length"
        schema = {"type": "json_schema", "json_schema": {"name": "one", "schema": {"type": "object"}}}
        assert client.chat.completions.create(**asked, response_format=schema).choices
        refused = httpx.post(f"{stack.url}/v1/chat/completions", json=asked | {"presence_penalty": 1.0}, timeout=30)
        assert refused.status_code == 400
        assert "presence_penalty" in refused.json()["error"]["message"]
        assert "triton_chat_engine_generated_tokens_total" in httpx.get(stack.metrics_url).text
    check_clean_stop(tmp_path / "logs")
