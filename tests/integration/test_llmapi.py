# SPDX-License-Identifier: Apache-2.0
"""A real Triton whose `tensorrt_llm` model has the adapter of TensorRT-LLM's LLM API, with a double of that package."""

import base64
import io
import json
import os
import shutil

import httpx
import pytest
from openai import BadRequestError, OpenAI
from PIL import Image

from scripts.launcher import Stack
from tests.support.scripted import CONFIGS, ROOT, check_clean_stop, scripted_line

IMAGE = "<|vision_start|><|image_pad|><|vision_end|>"
# As Qwen2-VL's writes parts.
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{% if message.content is string %}"
    "{{ message.content }}{% else %}{% for part in message.content %}{% if part.type == 'image' %}"
    + IMAGE
    + "{% elif part.type == 'text' %}{{ part.text }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def llmapi_line(tmp_path, tokenizer_dir) -> tuple[list[str], dict[str, str]]:
    """The arguments and the environment of a stack whose engine is the double."""
    arguments = scripted_line("qwen3", tokenizer_dir, tmp_path)
    at = arguments.index("--script")
    script = arguments[at + 1]
    del arguments[at : at + 2]
    package = ROOT / "tests" / "fakes" / "llmapi_double" / "tensorrt_llm"
    shutil.copytree(package, tmp_path / "model_repository" / "tensorrt_llm" / "1" / "tensorrt_llm")
    return [*arguments, "--engine", "llmapi"], os.environ | {"TENSORRT_LLM_DOUBLE": script}


def test_a_stack_on_the_llm_api(tmp_path, qwen3_tokenizer_dir):
    arguments, environment = llmapi_line(tmp_path, qwen3_tokenizer_dir)
    text = "<think>\nShort.\n</think>\n\nHello there, good day."
    (tmp_path / "script.json").write_text(json.dumps([{"text": text}]))
    with Stack([*arguments, "--max-num-seqs", "8"], environment=environment) as stack:
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


def data_url(width: int, height: int) -> str:
    file = io.BytesIO()
    Image.new("RGB", (width, height), "red").save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def test_pictures_on_the_llm_api(tmp_path, qwen3_tokenizer_dir):
    """As TensorRT-LLM takes them: the prompt's text with a placeholder for each, and the pictures as they are."""
    arguments, environment = llmapi_line(tmp_path, qwen3_tokenizer_dir)
    config = CONFIGS["qwen3"] | {"model_type": "qwen2_vl", "architectures": ["Qwen2VLForConditionalGeneration"]}
    (tmp_path / "qwen3" / "config.json").write_text(json.dumps(config | {"vision_config": {}}))
    (tmp_path / "template.jinja").write_text(TEMPLATE)
    (tmp_path / "script.json").write_text(json.dumps([{"text": "Red, both."}]))
    arguments += ["--chat-template", str(tmp_path / "template.jinja")]
    with Stack(arguments, environment=environment) as stack:
        client = OpenAI(base_url=f"{stack.url}/v1", api_key="none", max_retries=0)
        pictures = [{"type": "image_url", "image_url": {"url": data_url(*size)}} for size in ((56, 84), (28, 28))]
        words = {"type": "text", "text": "What colour?"}
        model = stack.model_names[0]

        def answer(*content, **fields):
            messages = [{"role": "user", "content": list(content)}]
            return client.chat.completions.create(model=model, messages=messages, **fields)

        one, both = answer(words, pictures[1]), answer(words, *pictures)
        assert both.choices[0].message.content == "Red, both."
        # The double has a token for each 28 x 28 pixels, and a picture two more around them.
        assert both.usage.prompt_tokens - one.usage.prompt_tokens == 2 * 3 + 2
        video = {"type": "video_url", "video_url": {"url": data_url(28, 28)}}
        with pytest.raises(BadRequestError, match="takes no videos"):
            answer(video)
        with pytest.raises(BadRequestError, match="no options of images"):
            answer(pictures[0], extra_body={"mm_processor_kwargs": {"min_pixels": 784}})
    check_clean_stop(tmp_path / "logs")
