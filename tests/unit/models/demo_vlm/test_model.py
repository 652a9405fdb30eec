# SPDX-License-Identifier: Apache-2.0
"""The demo model in PyTorch and its served folder give the same numbers."""

import json
from pathlib import Path
from random import Random

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from models.demo_vlm.adapter import AdaptedLinear, merge_adapter
from models.demo_vlm.layout import TOKENS_PER_TILE, VISION_CONFIG
from models.demo_vlm.training import text_chats
from models.demo_vlm.training.dialogue import Encoder
from models.demo_vlm.training.feed import Batch, collate
from models.demo_vlm.training.generate import Prompt, answers
from models.demo_vlm.training.model import (
    DemoModel,
    answer_loss,
    load_weights,
    patch_loss,
    read_weights,
    save_weights,
    weights,
)
from models.demo_vlm.training.samples import draw, encode
from models.demo_vlm.training.scenes import SEEN_PAIRS
from scripts.cache import MARKER
from scripts.prepare import demo_vlm as prepare
from scripts.shared.errors import CommandError
from tests.support.demo_checkpoint import make_base
from vision.towers.internvit import load

# Relative to the logits' norm. PyTorch's CPU kernels may round a process's first pass differently, by 0.004.
ROUNDING = 0.02


def differing(logits: Tensor, expected: Tensor) -> float:
    """The norm of the difference, relative to that of the expected logits."""
    return float((logits.float() - expected.float()).norm() / expected.float().norm())


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def model(base: Path) -> DemoModel:
    """A model with large changes, rounded as in a weights file."""
    torch.manual_seed(5)
    made = DemoModel(base)
    with torch.no_grad():
        for name, parameter in made.language.named_parameters():
            if name.endswith(".up"):
                parameter.normal_(std=0.02)
    load_weights(made, weights(made))
    return made.eval()


@pytest.fixture(scope="module")
def batch(base: Path) -> Batch:
    encoder, rng = Encoder(base), Random(1)
    samples = [encode(encoder, draw(rng, SEEN_PAIRS, 2)) for _ in range(3)]
    return collate(samples, encoder.image_id, encoder.end_id)


@pytest.fixture
def weights_file(model: DemoModel, tmp_path: Path) -> Path:
    save_weights(model, tmp_path)
    path = tmp_path / "weights.safetensors"
    save_file(read_weights(tmp_path), path)
    return path


@pytest.fixture
def served(base: Path, weights_file: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "served"
    folder.mkdir()
    prepare.build(base, weights_file, folder)
    return folder


def test_the_served_weights_give_the_same_logits(model: DemoModel, base: Path, batch: Batch, served: Path) -> None:
    merged = AutoModelForCausalLM.from_pretrained(served, dtype=torch.bfloat16)
    unchanged = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
    with torch.no_grad():
        embedded, _ = model.embeddings(batch)
        expected = model.language(inputs_embeds=embedded).logits
        assert differing(merged(inputs_embeds=embedded).logits, expected) < ROUNDING
        assert differing(unchanged(inputs_embeds=embedded).logits, expected) > 20 * ROUNDING
        with model.unchanged():
            original = model.language(inputs_embeds=embedded).logits
        assert differing(original, unchanged(inputs_embeds=embedded).logits) < ROUNDING
        assert differing(model.language(inputs_embeds=embedded).logits, expected) < ROUNDING


def test_the_served_weights_are_the_trained_ones(model: DemoModel, served: Path) -> None:
    stored, tied = load_file(served / "model.safetensors"), "lm_head.weight"
    adapted = {name: module for name, module in model.language.named_modules() if isinstance(module, AdaptedLinear)}
    changes = {
        f"{name}.weight": merge_adapter(one.weight, one.down, one.up, one.scale) for name, one in adapted.items()
    }
    kept = {name: value for name, value in model.language.state_dict().items() if not name.endswith((".down", ".up"))}
    assert len(changes) == 7 * model.language.config.num_hidden_layers
    assert stored.keys() | {tied} == kept.keys() | {tied}
    assert all(torch.equal(value, (kept | changes)[name]) for name, value in stored.items())
    with model.unchanged():
        assert all(
            torch.equal(merge_adapter(one.weight, one.down, one.up, one.scale), one.weight) for one in adapted.values()
        )


def test_the_served_vision_tower_gives_the_same_rows(
    model: DemoModel, batch: Batch, served: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = json.loads((served / "vision" / "config.json").read_text())
    tower = load(served / "vision", config, torch.float32, torch.device("cpu"))
    with torch.no_grad():
        rows = tower(batch.tiles)
        expected = model.vision.project(model.vision.patches(batch.tiles))
    assert rows.shape == (len(batch.tiles), TOKENS_PER_TILE, VISION_CONFIG["llm_hidden_size"])
    torch.testing.assert_close(rows, expected, rtol=1e-3, atol=1e-4)


def test_each_tile_replaces_its_own_image_tokens(model: DemoModel, batch: Batch) -> None:
    with torch.no_grad():
        before, _ = model.embeddings(batch)
        changed = Batch(**{name: getattr(batch, name).clone() for name in Batch.__slots__})
        changed.tiles[1] = 255 - changed.tiles[1]
        after, _ = model.embeddings(changed)
    differs = (before != after).any(-1).flatten().nonzero().flatten()
    start = TOKENS_PER_TILE
    assert set(differs.tolist()) <= set(batch.image_index[start : start + TOKENS_PER_TILE].tolist())
    assert len(differs) > TOKENS_PER_TILE // 2


def test_a_few_steps_on_a_sample_learn_it(base: Path) -> None:
    torch.manual_seed(1)
    model, encoder, rng = DemoModel(base), Encoder(base), Random(2)
    samples = (encode(encoder, draw(rng, SEEN_PAIRS, 1, simple=True)) for _ in range(100))
    batch = collate([next(item for item in samples if len(item.tiles) == 1)], encoder.image_id, encoder.end_id)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    frozen = {name: value.clone() for name, value in model.language.state_dict().items() if name.endswith("weight")}
    optimizer = torch.optim.AdamW(trained, lr=1e-3)
    losses, patches = [], []
    for _ in range(6):
        logits, patch_logits = model.logits(batch)
        assert patch_logits is not None
        losses.append(answer_loss(logits, batch.targets))
        patches.append(patch_loss(patch_logits, batch.labels))
        torch.autograd.backward(losses[-1] + patches[-1])
        optimizer.step()
        optimizer.zero_grad()
    assert losses[-1] < losses[0] - 0.3
    assert patches[-1] < 0.7 * patches[0]
    assert all(torch.equal(value, model.language.state_dict()[name]) for name, value in frozen.items())


def test_drift_measures_the_change_from_the_original(model: DemoModel, base: Path) -> None:
    encoder = Encoder(base)
    dialogues = text_chats.answered(model, encoder, ["Hello!", "What is 2 + 2?"], 5)
    chat = text_chats.pick(Random(0), encoder, dialogues, 2)
    drift, _ = text_chats.drift(model, chat)
    assert drift > 0.001
    drift.backward()
    adapters = [item for name, item in model.language.named_parameters() if name.endswith(("up", "down"))]
    assert all(item.grad is not None and item.grad.any() for item in adapters)
    model.zero_grad()
    with torch.no_grad():
        untrained, same = text_chats.drift(DemoModel(base), chat)
    assert (float(untrained), float(same)) == (0, 1)


def test_answers_do_not_depend_on_the_padding(model: DemoModel, base: Path) -> None:
    encoder = Encoder(base)
    empty = torch.empty(0, 224, 224, 3, dtype=torch.uint8).numpy()
    prompts = [Prompt(list(range(6, 6 + length)), empty) for length in (5, 40)]
    together = answers(model, encoder, prompts, 4)
    alone = [answers(model, encoder, [prompt], 4)[0] for prompt in prompts]
    assert together == alone


def test_the_folder_is_built_once_and_again_for_other_weights(
    model: DemoModel, base: Path, weights_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRITON_CHAT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(prepare, "WEIGHTS", weights_file)
    monkeypatch.setattr(prepare.smollm2, "prepare_default_model", lambda: base)
    quiet = Console(quiet=True)
    folder = prepare.prepare_demo_vlm(quiet)
    made = (folder / MARKER).stat().st_mtime_ns
    assert prepare.prepare_demo_vlm(quiet) == folder
    assert (folder / MARKER).stat().st_mtime_ns == made
    assert json.loads((folder / "vision" / "config.json").read_text()) == VISION_CONFIG
    generation = json.loads((folder / "generation_config.json").read_text())
    assert generation["do_sample"] is False and "temperature" not in generation
    assert {path.name for path in folder.iterdir()} >= {"config.json", "tokenizer.json", "model.safetensors", "vision"}

    tensors = load_file(weights_file)
    save_file({name: tensor * 2 for name, tensor in tensors.items()}, weights_file)
    prepare.prepare_demo_vlm(quiet)
    assert (folder / MARKER).stat().st_mtime_ns != made
    stored = load_file(folder / "vision" / "model.safetensors")
    assert torch.equal(stored["layers.0.ls1"], 2 * tensors["vision.layers.0.ls1"])


def test_the_weights_are_in_the_package() -> None:
    assert prepare.WEIGHTS.stat().st_size > 10_000_000


def test_missing_and_foreign_weights_are_refused(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare, "WEIGHTS", tmp_path / "none")
    with pytest.raises(CommandError, match="missing"):
        prepare.prepare_demo_vlm(Console(quiet=True))
    foreign = tmp_path / "foreign.safetensors"
    save_file({"language.model.layers.99.mlp.up_proj.up": torch.zeros(1)}, foreign)
    served = tmp_path / "served"
    served.mkdir()
    with pytest.raises(CommandError, match=r"layers\.99"):
        prepare.build(base, foreign, served)
