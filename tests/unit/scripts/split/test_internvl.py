# SPDX-License-Identifier: Apache-2.0
"""Splitting the InternVL family: the same weights under other names, and the same answers."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from einops import rearrange
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, InternVLForConditionalGeneration

from common.checkpoint import Checkpoint
from common.tokenizer import ChatTokenizer
from scripts.split.errors import SplitError
from scripts.split.splitter import split_checkpoint
from tests.support.vlm_checkpoints import (
    LARGE_TOWER,
    SMALL_TOWER,
    VlmCheckpoint,
    make_internvl,
    make_tokenizer,
    rename_tensors,
    write_shards,
)

DYNAMIC = {"rope_type": "dynamic", "factor": 2.0}
CASES = [("transformers", name) for name in ("qwen2", "qwen3", "qwen3_moe", "gpt_oss", "llama")]
CASES += [("original", name) for name in ("qwen2", "qwen3", "qwen3_moe", "gpt_oss", "llama", "internlm2", "internlm3")]
CLASSES = {"qwen2": "Qwen2", "qwen3": "Qwen3", "qwen3_moe": "Qwen3Moe", "gpt_oss": "GptOss"}


@pytest.fixture(scope="module")
def tokenizer_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture
def make(tmp_path: Path, tokenizer_dir: Path) -> Callable[..., VlmCheckpoint]:
    """Makes a checkpoint in the test's folder; four heads, two of them for keys and values."""

    def build(language: str = "qwen2", layout: str = "original", **options: Any) -> VlmCheckpoint:
        return make_internvl(tmp_path / "vlm", tokenizer_dir, language, layout, hidden_size=256, **options)

    return build


def edit(folder: Path, change: Callable[[dict[str, Any]], None], name: str = "config.json") -> None:
    config = json.loads((folder / name).read_text())
    change(config)
    (folder / name).write_text(json.dumps(config))


def read(folder: Path, name: str = "config.json") -> dict[str, Any]:
    return json.loads((folder / name).read_text())


def logits(model: torch.nn.Module, length: int = 24) -> torch.Tensor:
    ids = torch.arange(length)[None] * 7 % 250
    with torch.no_grad():
        return model.eval()(input_ids=ids).logits


@pytest.mark.parametrize(("layout", "language"), CASES)
def test_the_language_model_is_the_same(
    make: Callable[..., VlmCheckpoint], layout: str, language: str, tmp_path: Path
) -> None:
    checkpoint = make(language, layout)
    split = split_checkpoint(checkpoint.path, tmp_path / "split")
    reference = InternVLForConditionalGeneration.from_pretrained(checkpoint.reference, dtype=torch.float32)
    model, loading = AutoModelForCausalLM.from_pretrained(split, dtype="auto", output_loading_info=True)
    assert not any(loading.values())
    assert type(model).__name__ == CLASSES.get(language, "Llama") + "ForCausalLM"
    # InternVL3.5's prompts are ChatML, but with gpt-oss they are that model's.
    assert read(split / "vision")["family"] == ("default" if language == "gpt_oss" else "internvl2_5")
    weights = {f"model.{name}": value for name, value in reference.model.language_model.state_dict().items()}
    weights["lm_head.weight"] = reference.lm_head.weight
    assert model.state_dict().keys() == weights.keys()
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    assert torch.equal(logits(model), logits(reference))


@pytest.mark.parametrize("tower", [SMALL_TOWER, LARGE_TOWER], ids=["300M", "6B"])
def test_both_layouts_give_the_same_vision_part(tokenizer_dir: Path, tmp_path: Path, tower: dict[str, Any]) -> None:
    original = make_internvl(tmp_path / "vlm", tokenizer_dir, "qwen2", "original", tower=tower)
    ours = [
        split_checkpoint(path, tmp_path / f"split-{path.name}") / "vision"
        for path in (original.path, original.reference)
    ]
    one, other = (load_file(folder / "model.safetensors") for folder in ours)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert read(ours[0]) == read(ours[1])


def test_vision_tensors_are_the_published_ones_without_prefixes(
    make: Callable[..., VlmCheckpoint], tmp_path: Path
) -> None:
    checkpoint = make()
    vision = load_file(split_checkpoint(checkpoint.path, tmp_path / "split") / "vision" / "model.safetensors")
    published = load_file(checkpoint.path / "model.safetensors")
    tower = {
        name.removeprefix("vision_model.").removeprefix("encoder."): value
        for name, value in published.items()
        if name.startswith("vision_model.")
    }
    for index, name in ((0, "norm"), (1, "fc1"), (3, "fc2")):
        tower |= {f"projector.{name}.{kind}": published[f"mlp1.{index}.{kind}"] for kind in ("weight", "bias")}
    assert vision.keys() == tower.keys()
    assert all(torch.equal(value, tower[name]) for name, value in vision.items())


def test_vision_config(make: Callable[..., VlmCheckpoint], tmp_path: Path) -> None:
    checkpoint = make(tower=LARGE_TOWER)
    processor = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]}
    (checkpoint.path / "preprocessor_config.json").write_text(json.dumps(processor))
    edit(checkpoint.path, lambda config: config.update(max_dynamic_patch=6, use_thumbnail=False))
    assert read(split_checkpoint(checkpoint.path, tmp_path / "split", dtype="float16") / "vision") == {
        "model_type": "internvit",
        "family": "internvl2_5",
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_channels": 3,
        "image_size": 56,
        "patch_size": 14,
        "hidden_act": "gelu",
        "norm_type": "rms_norm",
        "layer_norm_eps": 1e-6,
        "qkv_bias": False,
        "qk_normalization": True,
        "downsample_ratio": 0.5,
        "llm_hidden_size": 256,
        "dtype": "float16",
        **processor,
        "min_dynamic_patch": 1,
        "max_dynamic_patch": 6,
        "use_thumbnail": False,
        "image_token": "<IMG_CONTEXT>",
        "image_start": "<img>",
        "image_end": "</img>",
    }


def test_tiles_of_the_transformers_layout_come_from_its_processor(
    make: Callable[..., VlmCheckpoint], tmp_path: Path
) -> None:
    checkpoint = make(layout="transformers")
    processor = {"image_processor": {"min_patches": 2, "max_patches": 5, "image_mean": [0.5, 0.5, 0.5]}}
    (checkpoint.path / "processor_config.json").write_text(json.dumps(processor))
    vision = read(split_checkpoint(checkpoint.path, tmp_path / "split") / "vision")
    assert (vision["min_dynamic_patch"], vision["max_dynamic_patch"], vision["use_thumbnail"]) == (2, 5, True)
    assert (vision["image_mean"], vision["image_std"]) == ([0.5, 0.5, 0.5], [0.229, 0.224, 0.225])


def test_wqkv_by_attention_computed_from_the_fused_matrix(make: Callable[..., VlmCheckpoint], tmp_path: Path) -> None:
    checkpoint = make("internlm2")
    fused = load_file(checkpoint.path / "model.safetensors")["language_model.model.layers.1.attention.wqkv.weight"]
    split = load_file(split_checkpoint(checkpoint.path, tmp_path / "split") / "model.safetensors")
    hidden = torch.randn(5, 256, generator=torch.Generator().manual_seed(1))
    states = rearrange(hidden @ fused.T, "tokens (kv gs d) -> tokens kv gs d", gs=4, d=64)
    query, key, value = (hidden @ split[f"model.layers.1.self_attn.{kind}_proj.weight"].T for kind in "qkv")
    assert torch.allclose(query, rearrange(states[:, :, :2], "tokens kv gs d -> tokens (kv gs d)"), atol=1e-4)
    assert torch.allclose(key, rearrange(states[:, :, 2], "tokens kv d -> tokens (kv d)"), atol=1e-4)
    assert torch.allclose(value, rearrange(states[:, :, 3], "tokens kv d -> tokens (kv d)"), atol=1e-4)


def test_internlm2s_biases_are_divided_like_its_rows(make: Callable[..., VlmCheckpoint], tmp_path: Path) -> None:
    checkpoint = make("internlm2")
    edit(checkpoint.path, lambda config: config["llm_config"].update(bias=True))
    tensors = load_file(checkpoint.path / "model.safetensors")
    for layer in range(2):
        prefix = f"language_model.model.layers.{layer}.attention"
        tensors |= {f"{prefix}.wqkv.bias": torch.arange(512.0), f"{prefix}.wo.bias": torch.arange(256.0)}
    save_file(tensors, checkpoint.path / "model.safetensors")
    split = load_file(split_checkpoint(checkpoint.path, tmp_path / "split") / "model.safetensors")
    assert split["model.layers.0.self_attn.q_proj.bias"].tolist() == [*range(128), *range(256, 384)]
    assert split["model.layers.0.self_attn.k_proj.bias"].tolist() == [*range(128, 192), *range(384, 448)]
    assert split["model.layers.0.self_attn.v_proj.bias"].tolist() == [*range(192, 256), *range(448, 512)]


@pytest.mark.parametrize("layout", ["original", "transformers"])
def test_dynamic_rope_is_kept_in_both_spellings(
    make: Callable[..., VlmCheckpoint], layout: str, tmp_path: Path
) -> None:
    checkpoint = make("internlm2" if layout == "original" else "llama", layout, rope_scaling=DYNAMIC)
    split = split_checkpoint(checkpoint.path, tmp_path / "split")
    config = read(split)
    assert config["rope_theta"] == 10000.0
    assert {key: config["rope_scaling"][key] for key in DYNAMIC} == DYNAMIC
    reference = InternVLForConditionalGeneration.from_pretrained(checkpoint.reference, dtype=torch.float32)
    model = AutoModelForCausalLM.from_pretrained(split, dtype="auto")
    assert model.config.rope_parameters["rope_type"] == "dynamic"
    # Within and beyond max_position_embeddings (2048); beyond it the base is scaled.
    for length in (24, 2100):
        assert torch.equal(logits(model, length), logits(reference, length))


def test_sharded_newer_names_and_older_names_are_the_same_checkpoint(
    make: Callable[..., VlmCheckpoint], tmp_path: Path
) -> None:
    checkpoint = make(layout="transformers")
    newer = shutil.copytree(checkpoint.path, tmp_path / "newer")
    renamed = {
        "language_model.model.": "model.language_model.",
        "language_model.lm_head.": "lm_head.",
        "vision_tower.": "model.vision_tower.",
        "multi_modal_projector.": "model.multi_modal_projector.",
    }

    def rename(name: str) -> str:
        before = next(before for before in renamed if name.startswith(before))
        return renamed[before] + name.removeprefix(before)

    rename_tensors(newer, rename)
    write_shards(newer, 3)
    one, other = (split_checkpoint(path, tmp_path / f"split-{path.name}") for path in (checkpoint.path, newer))
    for file in ("model.safetensors", "vision/model.safetensors"):
        left, right = load_file(one / file), load_file(other / file)
        assert left.keys() == right.keys()
        assert all(torch.equal(left[name], right[name]) for name in left)


@pytest.mark.parametrize("layout", ["original", "transformers"])
def test_tied_embeddings_stay_tied(make: Callable[..., VlmCheckpoint], layout: str, tmp_path: Path) -> None:
    checkpoint = make(layout=layout, tied=True)
    inner = "llm_config" if layout == "original" else "text_config"
    edit(
        checkpoint.path,
        lambda config: (config.update(tie_word_embeddings=True), config[inner].pop("tie_word_embeddings")),
    )
    split = split_checkpoint(checkpoint.path, tmp_path / "split")
    assert read(split)["tie_word_embeddings"] is True
    model = AutoModelForCausalLM.from_pretrained(split, dtype="auto")
    reference = InternVLForConditionalGeneration.from_pretrained(checkpoint.reference, dtype=torch.float32)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert torch.equal(logits(model), logits(reference))


@pytest.mark.parametrize("same", [True, False])
def test_the_weights_decide_whether_a_stored_head_is_tied(
    make: Callable[..., VlmCheckpoint], same: bool, tmp_path: Path
) -> None:
    checkpoint = make(tied=True)
    tensors = load_file(checkpoint.path / "model.safetensors")
    embedding = tensors["language_model.model.embed_tokens.weight"]
    head = embedding.clone()
    head[-1] += 0 if same else 1
    save_file(tensors | {"language_model.lm_head.weight": head}, checkpoint.path / "model.safetensors")
    split = split_checkpoint(checkpoint.path, tmp_path / "split")
    assert read(split)["tie_word_embeddings"] is same
    model = AutoModelForCausalLM.from_pretrained(split, dtype="auto")
    assert torch.equal(model.lm_head.weight, head)


def test_weights_are_converted_on_demand(make: Callable[..., VlmCheckpoint], tmp_path: Path) -> None:
    checkpoint = make()
    split = split_checkpoint(checkpoint.path, tmp_path / "split", dtype="bfloat16")
    stored = load_file(checkpoint.path / "model.safetensors")
    assert (read(split)["dtype"], read(split)["torch_dtype"], read(split / "vision")["dtype"]) == ("bfloat16",) * 3
    for name, value in load_file(split / "model.safetensors").items():
        assert torch.equal(value, stored[f"language_model.{name}"].to(torch.bfloat16))


def test_the_split_is_what_the_rest_of_the_system_reads(make: Callable[..., VlmCheckpoint], tmp_path: Path) -> None:
    checkpoint = make("internlm2")
    edit(checkpoint.path, lambda config: config.update(eos_token_id=[261, 260], rotten=1), "generation_config.json")
    split = split_checkpoint(checkpoint.path, tmp_path / "split")
    whole, text = Checkpoint.load(checkpoint.path), Checkpoint.load(split)
    assert text.end_ids == whole.end_ids == (261, 260)
    assert (text.vocab_size, text.max_position_embeddings) == (whole.vocab_size, whole.max_position_embeddings)
    tokenizer = ChatTokenizer.load(split)
    assert all(tokenizer.token_id(token) is not None for token in ("<img>", "</img>", "<IMG_CONTEXT>"))
    assert read(split)["transformers_version"]
    assert {"auto_map", "top_k", "attn_implementation", "bias"}.isdisjoint(read(split))
    assert sorted(path.name for path in split.iterdir()) == [
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "vision",
    ]


ORIGINAL_REFUSALS: dict[str, tuple[dict[str, Any], str]] = {
    "layer": ({"select_layer": -4}, r"select_layer is -4"),
    "shuffle": ({"ps_version": "v1"}, r"ps_version is 'v1'"),
    "quantised": ({"quantization_config": {"quant_method": "awq"}}, r"quantised \(awq\)"),
    "unknown": (
        {"model_type": "llava", "architectures": ["LlavaModel"]},
        r"'llava' \(LlavaModel\); known: gemma3, internvl, internvl_chat",
    ),
    "text": (
        {"model_type": "qwen2", "vision_config": None},
        r"'qwen2' is a text model already: there is nothing to split",
    ),
}


@pytest.mark.parametrize(("change", "message"), ORIGINAL_REFUSALS.values(), ids=ORIGINAL_REFUSALS.keys())
def test_refused_configurations(
    make: Callable[..., VlmCheckpoint], change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    checkpoint = make()
    edit(checkpoint.path, lambda config: config.update(change))
    with pytest.raises(SplitError, match=message):
        split_checkpoint(checkpoint.path, tmp_path / "split")
    assert not (tmp_path / "split").exists()


INNER_REFUSALS: dict[str, tuple[str, str, dict[str, Any], str]] = {
    "activation": ("original", "vision_config", {"hidden_act": "silu"}, r"hidden_act is 'silu'; only gelu"),
    "norm": ("original", "vision_config", {"norm_type": "batch"}, r"known: layer_norm, rms_norm"),
    "rope": (
        "original",
        "llm_config",
        {"rope_scaling": {"type": "yarn", "factor": 2.0}},
        r"rope_scaling 'yarn'.*known: dynamic, linear",
    ),
    "language": (
        "original",
        "llm_config",
        {"model_type": "phi3_v"},
        r"language model 'phi3_v' is not known; known: internlm2",
    ),
    "biases": (
        "original",
        "llm_config",
        {"model_type": "internlm3", "qkv_bias": True},
        r"qkv_bias of InternLM3 is set",
    ),
    "layers": ("original", "llm_config", {"num_hidden_layers": 3}, r"missing: model\.layers\.2\."),
    "fewer layers": ("original", "vision_config", {"num_hidden_layers": 1}, r"left over: layers\.1\."),
    "tile": ("original", "vision_config", {"image_size": [56, 28]}, r"only squares"),
    "final norm": ("transformers", "vision_config", {"use_mean_pooling": False}, r"use_mean_pooling is False"),
}


@pytest.mark.parametrize(("layout", "part", "change", "message"), INNER_REFUSALS.values(), ids=INNER_REFUSALS.keys())
def test_refused_parts(
    make: Callable[..., VlmCheckpoint], layout: str, part: str, change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    checkpoint = make("internlm2" if layout == "original" else "llama", layout)
    edit(checkpoint.path, lambda config: (config.pop("force_image_size", None), config[part].update(change)))
    with pytest.raises(SplitError, match=message):
        split_checkpoint(checkpoint.path, tmp_path / "split")
    assert not (tmp_path / "split").exists()


def test_a_tile_size_that_the_positions_do_not_fit_is_refused(
    make: Callable[..., VlmCheckpoint], tmp_path: Path
) -> None:
    checkpoint = make()
    edit(checkpoint.path, lambda config: config.update(force_image_size=112))
    with pytest.raises(SplitError, match=r"embeddings\.position_embedding is \[1, 17, 64\] instead of \[1, 65, 64\]"):
        split_checkpoint(checkpoint.path, tmp_path / "split")


def test_an_unknown_tensor_is_named(make: Callable[..., VlmCheckpoint], tmp_path: Path) -> None:
    checkpoint = make()
    tensors = load_file(checkpoint.path / "model.safetensors")
    save_file(tensors | {"qllama.weight": torch.zeros(1)}, checkpoint.path / "model.safetensors")
    with pytest.raises(SplitError, match=r"does not know: qllama\.weight"):
        split_checkpoint(checkpoint.path, tmp_path / "split")


def test_quantised_tensors_are_named(make: Callable[..., VlmCheckpoint], tmp_path: Path) -> None:
    checkpoint = make()
    tensors = load_file(checkpoint.path / "model.safetensors")
    tensors["language_model.model.norm.weight"] = torch.zeros(256, dtype=torch.int8)
    save_file(tensors, checkpoint.path / "model.safetensors")
    with pytest.raises(SplitError, match=r"looks quantised: language_model\.model\.norm\.weight \(I8\)"):
        split_checkpoint(checkpoint.path, tmp_path / "split", dtype="bfloat16")
