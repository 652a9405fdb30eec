# SPDX-License-Identifier: Apache-2.0
"""The vision towers compared with transformers, with tiny random weights."""

from pathlib import Path

import pytest
import torch

from tests.support.vision_towers import (
    VARIANTS,
    canonical_tensors,
    internvit_config,
    internvl,
    normalised,
    random_tiles,
    write_internvit,
    write_siglip,
    write_vision,
)
from vision.options import VitOptions
from vision.runtimes.torch_runtime import TorchRuntime
from vision.towers.gpu_form import gpu_form
from vision.towers.internvit import linear_gelu, pixel_shuffle
from vision.towers.registry import load_tower

CPU = torch.device("cpu")
# Float32 sums in another order; the largest values are about 10.
CLOSE = {"rtol": 1e-4, "atol": 1e-4}


@pytest.fixture
def tf32():
    """torch's switch for TF32, which monkeypatch cannot restore."""
    switch = torch.backends.cuda.matmul
    before = switch.allow_tf32
    yield switch
    switch.allow_tf32 = before


def load(folder: Path, dtype: str = "auto") -> torch.nn.Module:
    return load_tower(folder / "vision", dtype, CPU)


@pytest.mark.parametrize("variant", VARIANTS)
def test_internvit_equals_transformers_internvl(variant, tmp_path):
    model, tiles = write_internvit(tmp_path, variant), random_tiles(3)
    with torch.inference_mode():
        expected = model.get_image_features(normalised(tiles)).pooler_output
        found = load(tmp_path)(tiles)
    assert found.shape == (3, 4, 40) and found.dtype == torch.float32
    assert expected.std() > 0.1
    torch.testing.assert_close(found, expected, **CLOSE)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_fused_internvit_equals_transformers_internvl(variant, tmp_path):
    model, tiles = write_internvit(tmp_path, variant), random_tiles(3)
    with torch.inference_mode():
        expected = model.get_image_features(normalised(tiles)).pooler_output
        fused = gpu_form(load(tmp_path))
        for module in fused.modules_to_compile():
            module.compile(dynamic=True)
        torch.testing.assert_close(fused(tiles), expected, **CLOSE)
        torch.testing.assert_close(fused(tiles[:1]), expected[:1], **CLOSE)


def test_a_fused_internvit_rounds_no_worse(tmp_path):
    model, tiles = write_internvit(tmp_path, "300m"), random_tiles(8)
    with torch.inference_mode():
        exact = model.get_image_features(normalised(tiles)).pooler_output
        plain = load(tmp_path, "bfloat16")(tiles)
        fused = gpu_form(load(tmp_path, "bfloat16"))(tiles)
    assert fused.dtype == torch.bfloat16
    assert (fused - exact).norm() < 1.1 * (plain - exact).norm()


def test_linear_gelu_equals_linear_then_gelu():
    torch.manual_seed(0)
    linear, x = torch.nn.Linear(16, 24), torch.randn(2, 5, 16) * 3
    with torch.inference_mode():
        # The CPU computes exact GELU, a GPU its tanh form.
        torch.testing.assert_close(linear_gelu(linear, x), torch.nn.functional.gelu(linear(x)), rtol=0, atol=1e-3)


@pytest.mark.parametrize(("dtype", "rounds"), [("float32", False), ("bfloat16", True), ("float16", True)])
def test_only_towers_of_16_bits_embed_patches_in_tf32(dtype, rounds, tmp_path, tf32):
    tf32.allow_tf32 = not rounds
    write_internvit(tmp_path, "300m")
    TorchRuntime(VitOptions("torch", vision=tmp_path / "vision", device="cpu", dtype=dtype))
    assert tf32.allow_tf32 is rounds


def test_siglip_equals_transformers_gemma3(tmp_path):
    model, tiles = write_siglip(tmp_path), random_tiles(3)
    with torch.inference_mode():
        expected = model.get_image_features(normalised(tiles, (0.5,) * 3, (0.5,) * 3)).pooler_output
        found = load(tmp_path)(tiles)
    assert found.shape == (3, 4, 40)
    assert expected.std() > 0.1
    torch.testing.assert_close(found, expected, **CLOSE)


@pytest.mark.parametrize("write", [lambda folder: write_internvit(folder, "300m"), write_siglip])
def test_a_tile_does_not_depend_on_its_run(write, tmp_path):
    write(tmp_path)
    tower, tiles = load(tmp_path), random_tiles(5)
    with torch.inference_mode():
        together = tower(tiles)
        alone = torch.cat([tower(tile[None]) for tile in tiles])
    torch.testing.assert_close(together, alone, **CLOSE)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(("dtype", "share"), [("bfloat16", 0.03), ("float16", 0.005)])
def test_a_short_dtype_stays_close_to_float32(variant, dtype, share, tmp_path):
    """Compare the root mean squares of the difference and of the values; 2^-8 is one rounding of bfloat16."""
    write_internvit(tmp_path, variant)
    tiles = random_tiles(2)
    with torch.inference_mode():
        exact, short = load(tmp_path)(tiles), load(tmp_path, dtype)(tiles)
    assert short.dtype == getattr(torch, dtype)
    assert (short.float() - exact).square().mean().sqrt() < share * exact.square().mean().sqrt()


def test_pixel_shuffle_keeps_neighbours_together():
    grid = torch.arange(16).view(1, 16, 1)
    assert pixel_shuffle(grid, 4, 2).tolist() == [[[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]]


def test_tensors_that_do_not_fit_are_named(tmp_path):
    tensors = canonical_tensors(internvl("300m"))
    tensors["layers.0.attn.qkv2.weight"] = tensors.pop("layers.0.attn.qkv.weight")
    tensors["layers.1.ls1"] = tensors["layers.1.ls1"][:-1].clone()
    write_vision(tmp_path, internvit_config("300m"), tensors)
    with pytest.raises(ValueError) as raised:
        load(tmp_path)
    message = str(raised.value)
    assert "missing: layers.0.attn.qkv.weight" in message
    assert "unexpected: layers.0.attn.qkv2.weight" in message
    assert "of another shape: 'layers.1.ls1' is [31], not [32]" in message


@pytest.mark.parametrize("name", ["embeddings.patch_embedding.weight", "projector.fc2.bias"])
def test_every_tensor_is_needed(name, tmp_path):
    tensors = canonical_tensors(internvl("6b"))
    del tensors[name]
    write_vision(tmp_path, internvit_config("6b"), tensors)
    with pytest.raises(ValueError, match=f"missing: {name}"):
        load(tmp_path)


def test_siglip_tensors_that_do_not_fit_are_named(tmp_path):
    from safetensors.torch import load_file, save_file

    write_siglip(tmp_path)
    path = tmp_path / "vision" / "model.safetensors"
    tensors = load_file(path)
    del tensors["multi_modal_projector.mm_soft_emb_norm.weight"]
    save_file(tensors, path)
    with pytest.raises(ValueError, match=r"missing: multi_modal_projector\.mm_soft_emb_norm\.weight"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "clip"}, "unknown model_type 'clip'; known: internvit, siglip_gemma3"),
        ({"norm_type": "group_norm"}, "unknown norm_type 'group_norm'; known: layer_norm, rms_norm"),
        ({"hidden_act": "relu"}, "unknown hidden_act 'relu'; known: gelu"),
        ({"dtype": "int8"}, "unknown dtype 'int8'; known: bfloat16, float16, float32"),
        ({"image_size": 60}, "image_size 60 is not a multiple of 28"),
        ({"num_attention_heads": 5}, "hidden_size 32 is not a multiple of 5"),
    ],
)
def test_a_wrong_config_is_named(changes, message, tmp_path):
    write_vision(tmp_path, internvit_config("300m", **changes), {})
    with pytest.raises(ValueError, match=message):
        load(tmp_path)


def test_a_missing_key_or_file_is_named(tmp_path):
    config = internvit_config("300m")
    del config["image_std"], config["qkv_bias"]
    write_vision(tmp_path, config, {})
    with pytest.raises(ValueError, match=r"config.json lacks image_std, qkv_bias"):
        load(tmp_path)
    write_vision(tmp_path, internvit_config("300m"), {})
    (tmp_path / "vision" / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"there is no '.*vision/model.safetensors'"):
        load(tmp_path)
    (tmp_path / "vision" / "config.json").write_text("[")
    with pytest.raises(ValueError, match=r"vision/config.json' cannot be read"):
        load(tmp_path)
