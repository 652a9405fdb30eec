# SPDX-License-Identifier: Apache-2.0
"""The engine of TensorRT-LLM's LLM API, on a double that has its documented arguments and refuses all others."""

import asyncio
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from tensorrt_llm.llm import RequestError as LlmApiError
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from common.errors import RequestError
from common.finish_reason import FinishReason
from common.raw_pictures import pack
from common.shared_bytes import joined
from engines.engine import Generation, Once
from engines.options import EngineOptions
from engines.registry import build_engine
from tests.support.engine_streams import stream_of


@pytest.fixture
def qwen(tmp_path):
    """A checkpoint with the smallest tokenizer, as its ids do not matter."""
    (tmp_path / "tokenizer").mkdir()
    Tokenizer(WordLevel({"a": 1, "?": 0}, unk_token="?")).save(str(tmp_path / "tokenizer" / "tokenizer.json"))
    return checkpoint(tmp_path, tmp_path / "tokenizer", {"model_type": "qwen3"})


@pytest.fixture
def gemma(tmp_path, gemma3_tokenizer_dir):
    config = {"model_type": "gemma3", "vision_config": {"image_size": 896}, "mm_tokens_per_image": 256}
    return checkpoint(tmp_path, gemma3_tokenizer_dir, config)


def checkpoint(folder: Path, tokenizer: Path, config: dict) -> Path:
    path = folder / "checkpoint"
    shutil.copytree(tokenizer, path)
    (path / "config.json").write_text(json.dumps(config))
    return path


async def started(path: Path, **passed):
    """Start the engine; returns it and the double's LLM inside it."""
    engine = build_engine(EngineOptions("llmapi", str(path), passed))
    await engine.start()
    return engine, engine._llm


@pytest.fixture
def script(tmp_path, monkeypatch):
    def play(*rules: dict) -> None:
        (tmp_path / "rules.json").write_text(json.dumps(rules))

    monkeypatch.setenv("TENSORRT_LLM_DOUBLE", str(tmp_path / "rules.json"))
    play({"ids": [11, 12, 13]})
    return play


def generation(**values):
    return Generation(**({"prompt_ids": [1, 2, 3], "max_tokens": 8, "end_id": 9} | values))


async def collect(engine, one) -> list:
    return [tokens async for tokens in stream_of(engine, one)]


async def test_an_answer_in_pieces_and_whole(qwen, script):
    engine, llm = await started(qwen)
    pieces = await collect(engine, generation())
    assert [piece.ids for piece in pieces] == [[11], [12], [13], [9]]
    assert [piece.finish for piece in pieces] == [None, None, None, FinishReason.END_ID]
    assert [piece.cached_tokens for piece in pieces] == [0, None, None, None]
    (whole,) = await collect(engine, generation(streaming=False))
    assert (whole.ids, whole.finish) == ([11, 12, 13, 9], FinishReason.END_ID)
    (short,) = await collect(engine, generation(streaming=False, max_tokens=2))
    assert (short.ids, short.finish) == ([11, 12], FinishReason.LENGTH)
    assert engine.statistics() == {"running": 0.0, "generated_tokens_total": 10.0}
    assert llm.aborted == 0
    engine.shutdown()


async def test_stop_words_of_one_id_and_of_several(qwen, script):
    engine, llm = await started(qwen)
    (one,) = await collect(engine, generation(stop_words=[[12]], streaming=False))
    assert (one.ids, one.finish) == ([11, 12], FinishReason.STOP_WORDS)
    pieces = await collect(engine, generation(stop_words=[[11, 12]]))
    assert [piece.ids for piece in pieces] == [[11], [12]]
    assert pieces[-1].finish is FinishReason.STOP_WORDS
    assert llm.aborted == 1
    # Without streaming too, and then all ids come at once.
    (whole,) = await collect(engine, generation(stop_words=[[11, 12]], streaming=False))
    assert (whole.ids, whole.finish, llm.aborted) == ([11, 12], FinishReason.STOP_WORDS, 2)
    # Several ids wait for min_tokens, as the engine lets single ids wait.
    late = await collect(engine, generation(stop_words=[[11, 12]], min_tokens=2))
    assert len(late) > 2 and late[-1].finish is not FinishReason.STOP_WORDS
    assert llm.aborted == 2
    engine.shutdown()


async def test_without_an_end_id_no_id_ends_the_answer(qwen, script):
    script({"ids": [11, 9, 12], "end": False})
    engine, llm = await started(qwen)
    (whole,) = await collect(engine, generation(end_id=-1, streaming=False))
    assert (whole.ids, whole.finish) == ([11, 9, 12], FinishReason.LENGTH)
    assert llm.submitted[0][1].ignore_eos
    engine.shutdown()


async def test_closing_or_cancelling_aborts_the_request(qwen, script):
    script({"ids": [11] * 1000, "delay_s": 0.01})
    engine, llm = await started(qwen)
    stream = stream_of(engine, generation(max_tokens=1000))
    await anext(stream)
    assert engine.statistics()["running"] == 1.0
    await stream.aclose()
    assert llm.aborted == 1 and engine.statistics()["running"] == 0.0

    task = asyncio.create_task(collect(engine, generation(max_tokens=1000)))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert llm.aborted == 2
    engine.shutdown()


async def test_sampling(qwen, script):
    (qwen / "generation_config.json").write_text('{"temperature": 0.6, "top_k": 20, "do_sample": true}')
    engine, llm = await started(qwen)

    async def sampled(**values):
        await collect(engine, generation(**values))
        return llm.submitted[-1][1]

    own = await sampled()
    assert (own.temperature, own.top_k, own.top_p) == (0.6, 20, None) and not own.greedy
    params = await sampled(temperature=0.9, top_p=0.5, top_k=0, min_p=0.1, min_tokens=2, seed=7)
    assert (params.temperature, params.top_k, params.top_p) == (0.9, None, 0.5)
    assert (params.min_p, params.min_tokens, params.seed) == (0.1, 2, 7)
    greedy = await sampled(temperature=0.0, top_p=0.5)
    assert greedy.greedy and (greedy.top_k, greedy.top_p, greedy.temperature) == (1, None, None)
    # With only a temperature it still samples; TensorRT-LLM's own defaults would decode greedily.
    open_ = await sampled(temperature=0.7, top_k=0)
    assert not open_.greedy and (open_.top_k, open_.top_p) == (None, 1.0)
    bias = torch.zeros(16)
    assert (await sampled(embedding_bias=bias)).embedding_bias is bias
    assert not own.detokenize and own.max_tokens == 8 and own.logprobs is None
    engine.shutdown()


async def test_logprobs(qwen, script):
    engine, llm = await started(qwen)
    (one,) = await collect(engine, generation(return_log_probs=True, streaming=False, max_tokens=2))
    assert (one.logprobs, one.top_ids) == ([-0.5, -0.5], None)
    pieces = await collect(engine, generation(return_log_probs=True, top_logprobs=2, max_tokens=2))
    assert [piece.top_ids for piece in pieces] == [[[11, 12]], [[12, 13]]]
    assert [piece.top_logprobs for piece in pieces] == [[[-0.5, -1.5]], [[-0.5, -1.5]]]
    assert [params.logprobs for _, params in llm.submitted] == [1, 2]
    engine.shutdown()


@pytest.mark.parametrize(
    ("guide_type", "guide", "field", "value"),
    [
        ("json", None, "json_object", True),
        ("json_schema", "{}", "json", "{}"),
        ("regex", "a+", "regex", "a+"),
        ("ebnf_grammar", "root ::= x", "grammar", "root ::= x"),
        ("structural_tag", "{}", "structural_tag", "{}"),
    ],
)
async def test_guides(qwen, script, guide_type, guide, field, value):
    engine, llm = await started(qwen)
    assert llm.arguments["guided_decoding_backend"] == "xgrammar"
    await collect(engine, generation(guide_type=guide_type, guide=guide))
    assert getattr(llm.submitted[0][1].guided_decoding, field) == value
    engine.shutdown()


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"guide_type": "yaml"}, "unknown guided decoding type 'yaml'"),
        ({"prompt_logprobs": 1}, "no log-probabilities of the prompt"),
        ({"priority": 1}, "priority is not supported"),
        ({"allowed_token_ids": (1,)}, "does not support allowed_token_ids"),
        ({"cache_salt": "x"}, "does not support cache_salt"),
        ({"prompt_table": torch.zeros(1, 4)}, "no prompt embeddings"),
        ({"images": torch.zeros(1, 896, 896, 3, dtype=torch.uint8)}, "its model has no vision tower"),
        ({"bad_words": [[4, 5]]}, "bad words of one token only"),
        ({"bad_words": [[4]]}, "sampler knows no bad words; its option sampler_type must be TRTLLMSampler"),
        ({"presence_penalty": 0.5}, "sampler knows no presence_penalty"),
        ({"repetition_penalty": 1.1}, "sampler knows no repetition_penalty"),
        ({"top_p": -1.0}, "require top_p >= 0"),
    ],
)
async def test_unsupported_inputs_are_refused(qwen, script, values, words):
    engine, llm = await started(qwen)
    with pytest.raises(RequestError, match=words) as caught:
        await collect(engine, generation(**values))
    assert caught.value.kind == "invalid_request"
    assert not llm.submitted and engine.statistics()["running"] == 0.0
    await collect(engine, generation(presence_penalty=0.0, repetition_penalty=1.0))
    engine.shutdown()


async def test_the_other_sampler_has_penalties_and_bad_words(qwen, script):
    (qwen / "generation_config.json").write_text('{"repetition_penalty": 1.05}')
    engine, llm = await started(qwen, sampler_type="TRTLLMSampler")
    await collect(engine, generation(presence_penalty=0.5, frequency_penalty=-0.5, bad_words=[[4], [5]]))
    params = llm.submitted[0][1]
    assert (params.presence_penalty, params.frequency_penalty, params.repetition_penalty) == (0.5, -0.5, 1.05)
    assert params.bad_token_ids == [4, 5]
    engine.shutdown()


async def test_since_1_3_every_sampler_has_penalties_and_bad_words(qwen, script, monkeypatch):
    monkeypatch.setattr("tensorrt_llm.__version__", "1.4.0rc4")
    engine, llm = await started(qwen)
    await collect(engine, generation(presence_penalty=0.5, bad_words=[[4]]))
    params = llm.submitted[0][1]
    assert (params.presence_penalty, params.bad_token_ids) == (0.5, [4])
    engine.shutdown()
    with pytest.raises(ValueError, match="TRTLLMSampler has been removed"):
        await started(qwen, sampler_type="TRTLLMSampler")


async def test_an_engine_that_dies_ends_its_running_requests(qwen, script):
    script({"dies": "a worker has died"})
    engine, _ = await started(qwen)
    engine._exit_task.cancel()  # It would end this process.
    with pytest.raises(RequestError, match="the engine has stopped") as caught:
        await collect(engine, generation())
    assert caught.value.kind == "unavailable" and engine.errored and engine.statistics()["running"] == 0.0


@pytest.mark.parametrize(
    ("words", "param"),
    [
        ("`default_max_tokens` (-3) must be greater than 0, `default_max_tokens` (-3) = max_seq_len (8)", "input_ids"),
        ("Token ID out of range", "input_ids"),
        ("Guided decoding error: the schema has no type", "guided_decoding_guide"),
    ],
)
async def test_what_the_executor_refuses_is_the_clients_error(qwen, script, words, param):
    script({"error": words})
    engine, _ = await started(qwen)
    with pytest.raises(RequestError) as caught:
        await collect(engine, generation())
    assert (caught.value.kind, caught.value.param, str(caught.value)) == ("invalid_request", param, words)
    engine.shutdown()


@pytest.mark.parametrize(
    "words",
    [
        "no room in the KV cache",
        "CUDA error: an illegal memory access was encountered",
        "Guided decoding error: internal error in fetch_batch: bitmask",
    ],
)
@pytest.mark.parametrize("at_once", [False, True])
async def test_other_errors_of_the_executor_are_faults_of_the_engine(qwen, script, monkeypatch, words, at_once):
    script({"error": words})
    engine, llm = await started(qwen)

    def fail(*_, **__):
        raise LlmApiError(words)

    if at_once:
        monkeypatch.setattr(llm, "generate_async", fail)
    with pytest.raises(LlmApiError, match=words):  # Which the service logs, and does not tell the client.
        await collect(engine, generation())
    assert not engine.errored
    engine.shutdown()


async def test_faults_of_the_engine(qwen, script):
    engine, llm = await started(qwen, enable_chunked_prefill=False, max_num_tokens=4)
    with pytest.raises(RequestError, match="should not exceed max_num_tokens"):
        await collect(engine, generation(prompt_ids=[1] * 5))
    assert not engine.errored
    engine._exit_task.cancel()  # It would end this process.
    llm.shutdown()
    with pytest.raises(RequestError, match="the engine has stopped") as caught:
        await collect(engine, generation())
    assert caught.value.kind == "unavailable" and engine.errored


async def test_options(qwen):
    _, llm = await started(qwen, max_model_len=4096, max_num_seqs=32, tensor_parallel_size=2, attn_backend="TRTLLM")
    assert llm.arguments == {
        "model": str(qwen),
        "tensor_parallel_size": 2,
        "dtype": "auto",
        "guided_decoding_backend": "xgrammar",
        "enable_chunked_prefill": True,
        "max_seq_len": 4096,
        "max_batch_size": 32,
        "attn_backend": "TRTLLM",
    }
    with pytest.raises(ValueError, match="invalid argument: gpu_memory_utilization"):
        await started(qwen, gpu_memory_utilization=0.9)
    with pytest.raises(ValueError, match="'max_seq_len' is given twice"):
        await started(qwen, max_model_len=1, max_seq_len=2)


WRITTEN = "\n\n<start_of_image>" + "<image_soft_token>" * 256 + "<end_of_image>\n\n"


async def test_images_of_gemma_3(gemma, script):
    engine, llm = await started(gemma)
    assert llm.arguments["kv_cache_config"] == {"enable_block_reuse": False}
    assert (llm.arguments["enable_chunked_prefill"], llm.arguments["attn_backend"]) == (False, "FLASHINFER")
    encode = llm.tokenizer.encode
    text = f"<bos><start_of_turn>user\n{WRITTEN}and {WRITTEN}: what differs?<end_of_turn>\n<start_of_turn>model\n"
    ids = encode(text, add_special_tokens=False)
    images = torch.randint(0, 255, (2, 896, 896, 3), dtype=torch.uint8)
    pieces = await collect(engine, generation(prompt_ids=ids, images=images))
    assert [token for piece in pieces for token in piece.ids] == [11, 12, 13, 9]
    inputs, _ = llm.submitted[0]
    short = (
        "<start_of_turn>user\n<start_of_image>and <start_of_image>: what differs?<end_of_turn>\n<start_of_turn>model\n"
    )
    assert inputs["prompt"] == short
    # The processor makes the same ids from it.
    assert llm._prompt(inputs) == ids
    assert [image.size for image in inputs["multi_modal_data"]["image"]] == [(896, 896)] * 2
    assert bytes(inputs["multi_modal_data"]["image"][1].tobytes()) == bytes(images[1].numpy().tobytes())
    # Without images the ids are passed unchanged.
    plain = encode("Hello", add_special_tokens=False)
    await collect(engine, generation(prompt_ids=plain))
    assert llm.submitted[1][0] == plain

    letters = [token for letter in "Hello" for token in encode(letter, add_special_tokens=False)]
    for given, words in (
        ({"prompt_ids": ids, "images": images[:1]}, "1 images for 2 image places"),
        ({"prompt_ids": plain, "images": images}, "2 images for 0 image places"),
        ({"prompt_ids": ids, "images": images[:, :448]}, r"must be \[n, 896, 896, 3\], not \[2, 448, 896, 3\]"),
        ({"prompt_ids": [*ids, *plain[:-1], *letters], "images": images}, "only as its tokenizer makes them"),
    ):
        with pytest.raises(RequestError, match=words):
            await collect(engine, generation(**given))
    engine.shutdown()


@pytest.fixture
def qwen_vl(tmp_path, qwen3_tokenizer_dir):
    return checkpoint(tmp_path, qwen3_tokenizer_dir, {"model_type": "qwen2_vl", "vision_config": {}})


def images_of(*sizes: tuple[int, int]) -> tuple[torch.Tensor, list[np.ndarray]]:
    """Random pictures of (height, width) as the contract's tensor, and themselves."""
    random = np.random.default_rng(1)
    pictures = [random.integers(0, 256, (*size, 3), np.uint8) for size in sizes]
    return torch.from_numpy(joined(pack(pictures))), pictures


async def test_images_of_any_family(qwen_vl, script):
    engine, llm = await started(qwen_vl)
    image = "<|vision_start|><|image_pad|><|vision_end|>"
    text = f"<|im_start|>user\n{image}and {image}?<|im_end|>\n<|im_start|>assistant\n"
    ids = llm.tokenizer.encode(text, add_special_tokens=False)
    tensor, pictures = images_of((56, 84), (28, 28))
    pieces = await collect(engine, generation(prompt_ids=ids, multimodal=Once(tensor)))
    assert [token for piece in pieces for token in piece.ids] == [11, 12, 13, 9]
    # Each has one token in the ids already.
    assert [piece.prompt_tokens for piece in pieces] == [len(ids) + 5, None, None, None]
    inputs, _ = llm.submitted[0]
    assert inputs["prompt"] == text
    assert all(
        np.array_equal(np.asarray(sent), own)
        for sent, own in zip(inputs["multi_modal_data"]["image"], pictures, strict=True)
    )
    (plain, *_) = await collect(engine, generation(prompt_ids=ids[:2]))
    assert plain.prompt_tokens is None and llm.submitted[1][0] == ids[:2]
    for given, words in (
        ({"multimodal": Once(tensor[:-1])}, "'multimodal' is damaged"),
        ({"multimodal": Once(images_of((28, 28))[0])}, "2 image tokens for 1 images"),
    ):
        with pytest.raises(RequestError, match=words):
            await collect(engine, generation(prompt_ids=ids, **given))
    engine.shutdown()


async def test_pictures_for_a_text_model_are_refused(qwen, script):
    engine, _ = await started(qwen)
    with pytest.raises(RequestError, match="no pictures of this model"):
        await collect(engine, generation(multimodal=Once(images_of((28, 28))[0])))
    engine.shutdown()
