# SPDX-License-Identifier: Apache-2.0
"""An embedding model alone: what the command line and the checkpoint make of it, and what frontends are told."""

import json
from pathlib import Path

import pytest
from rich.console import Console

from common.checkpoint import Checkpoint
from common.models_state import READY, read_states
from common.served_model import CHAT, EMBEDDING
from scripts.launcher.embedding import MODEL_REPOSITORY, embedding_options, wanted_kind, write_state
from scripts.launcher.environment import TritonServer, triton_environment
from scripts.launcher.errors import LaunchError
from scripts.launcher.instances import choose_instances
from scripts.launcher.model import ServedModel, resolve_model
from scripts.launcher.options import LaunchOptions, parse_options

NO_GPU = {"CUDA_VISIBLE_DEVICES": "", "VLLM_CPU_KVCACHE_SPACE": "1"}


def checkpoint(folder: Path, **config: object) -> Path:
    sizes = {"vocab_size": 100, "max_position_embeddings": 512, "model_type": "bert"}
    (folder / "config.json").write_text(json.dumps(sizes | config), encoding="utf-8")
    (folder / "vocab.txt").write_text("[PAD]\n", encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("model", None),
        ("model --kind chat --runner pooling", CHAT),
        ("model --kind embedding", EMBEDDING),
        ("model --runner pooling", EMBEDDING),
        ("model --convert embed", EMBEDDING),
        ("model --convert classify", EMBEDDING),
        ("model --runner generate --convert none", None),
    ],
)
def test_the_kind_of_the_command_line(line: str, kind: str | None) -> None:
    assert wanted_kind(parse_options(line.split())) == kind


def test_an_encoder_needs_no_end_id_and_only_its_own_tokenizer(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path, architectures=["BertModel"])
    model = resolve_model(str(folder), Console(quiet=True))
    assert (model.kind, model.checkpoint.end_ids) == (EMBEDDING, ())
    with pytest.raises(LaunchError, match="eos_token_id"):
        resolve_model(str(folder), Console(quiet=True), kind=CHAT)


def test_a_config_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{", encoding="utf-8")
    for kind in (None, EMBEDDING):
        with pytest.raises(LaunchError, match="not valid JSON"):
            resolve_model(str(tmp_path), Console(quiet=True), kind=kind)


def test_its_model_repository() -> None:
    assert embedding_options(LaunchOptions(), "vllm").model_repository == MODEL_REPOSITORY
    assert (MODEL_REPOSITORY / "embedding" / "1" / "model.py").is_file()


def test_another_repository_must_have_the_model(tmp_path: Path) -> None:
    with pytest.raises(LaunchError, match="no model 'embedding'"):
        embedding_options(LaunchOptions(model_repository=tmp_path), "vllm")


def test_a_repository_of_chat_models_is_for_those_of_several_alone(tmp_path: Path) -> None:
    given = LaunchOptions(model_repository=tmp_path)
    assert embedding_options(given, "vllm", shared=True).model_repository == MODEL_REPOSITORY
    (tmp_path / "embedding").mkdir()
    (tmp_path / "embedding" / "config.pbtxt").touch()
    assert embedding_options(given, "vllm", shared=True).model_repository == tmp_path


@pytest.mark.parametrize("engine", ["trtllm", "llmapi", "module:Class"])
def test_only_vllm_serves_it(engine: str) -> None:
    with pytest.raises(LaunchError, match="serves no embedding models"):
        embedding_options(LaunchOptions(), engine)


def test_what_frontends_are_told(tmp_path: Path) -> None:
    ((name, state),) = read_states(write_state(tmp_path)).items()
    assert (name, state.state, state.ensemble, state.engine) == (EMBEDDING, READY, EMBEDDING, EMBEDDING)
    assert (state.info.kind, state.info.names) == (EMBEDDING, ())


def test_its_engine_has_no_defaults_of_chats() -> None:
    server = TritonServer(Path("tritonserver"))
    options = json.loads(triton_environment(NO_GPU, LaunchOptions(), server, EMBEDDING)["TRITON_CHAT_ENGINE_OPTIONS"])
    assert options == {"enforce_eager": True}


def test_it_has_no_preprocessing(tmp_path: Path) -> None:
    found = Checkpoint.load(checkpoint(tmp_path), generates=False)
    model = ServedModel(found, "bert", 1, kind=EMBEDDING)
    assert choose_instances(LaunchOptions(preprocessing_instances=3), model, NO_GPU) == {}
