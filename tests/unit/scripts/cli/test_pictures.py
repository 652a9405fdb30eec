# SPDX-License-Identifier: Apache-2.0
"""What the doctor says about a checkpoint's pictures: their path, and what that path needs."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from scripts.cli import pictures
from scripts.cli.pictures import picture_findings
from scripts.launcher.options import LaunchOptions
from scripts.shared.findings import Finding
from tests.support.tiny_vlms import TINY_VLMS

MODELS = Path(__file__).parents[4] / "docs" / "models.md"
QWEN = {"model_type": "qwen2_5_vl", "architectures": ["Qwen2_5_VLForConditionalGeneration"], "vision_config": {}}
LOADS = "import sys, json; json.load(sys.stdin); print('a log line'); print(json.dumps({'image': 999, 'video': 1}))"


def write(folder: Path, config: dict[str, Any], **files: dict[str, Any]) -> Path:
    for name, value in {"config": config, **files}.items():
        (folder / f"{name}.json").write_text(json.dumps(value))
    return folder


@pytest.fixture(autouse=True)
def probe(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The program that loads the processor, as one line of Python."""
    program = [LOADS]
    monkeypatch.setattr(pictures, "python_command", lambda module: [sys.executable, "-c", program[0]])
    return program


def found(folder: Path, **options: Any) -> list[Finding]:
    vision = options.pop("vision", "")
    return list(picture_findings(folder, LaunchOptions(**options), {"TRITON_CHAT_VISION": vision}))


def test_the_engines_path(tmp_path: Path) -> None:
    write(tmp_path, QWEN, preprocessor_config={})
    assert found(tmp_path) == [
        Finding(
            "vision", "ok", "path engine: `preprocessing` runs the checkpoint's own processor, the engine the rest"
        ),
        Finding("its files", "ok", "preprocessor_config.json"),
        Finding("processor", "ok", "loads, and takes images, videos (at most 1)"),
    ]


def test_what_is_tested_is_what_has_a_tiny_checkpoint() -> None:
    assert {vlm.served for vlm in TINY_VLMS.values()} == pictures.TESTED | pictures.PARTLY_TESTED.keys()
    assert not pictures.TESTED & pictures.PARTLY_TESTED.keys()
    rows = re.findall(
        r"^\|[^|]+\| `(\w+For\w+)` \|[^|]*\| not run \|", MODELS.read_text(encoding="utf-8"), re.MULTILINE
    )
    assert set(rows) == pictures.PARTLY_TESTED.keys()


@pytest.mark.parametrize(
    ("architecture", "said"),
    [
        ("Gemma3nForConditionalGeneration", "in part: ids and features only, no answers"),
        (
            "KimiVLForConditionalGeneration",
            "in part: ids and features only, no answers, and a stand-in for the processor",
        ),
        ("Phi4MMForCausalLM", "in part: ids and features only, no answers, and a stand-in for the processor"),
    ],
)
def test_what_is_tested_in_part_is_said(tmp_path: Path, architecture: str, said: str) -> None:
    write(tmp_path, QWEN | {"architectures": [architecture]}, processor_config={})
    last = found(tmp_path)[-1]
    assert (last.subject, last.verdict) == ("tested", "warning") and last.text.startswith(said)


def test_what_is_not_tested_is_said(tmp_path: Path) -> None:
    write(tmp_path, QWEN | {"architectures": ["AriaForConditionalGeneration"]}, processor_config={})
    assert found(tmp_path)[-1] == Finding(
        "tested", "warning", "no: AriaForConditionalGeneration is none of the architectures that the tests run"
    )


def test_the_processor_is_loaded_as_the_engine_would(tmp_path: Path, probe: list[str]) -> None:
    write(tmp_path, QWEN)
    probe[0] = "import sys; raise ValueError(sys.stdin.read())"
    findings = found(tmp_path, engine_name="mine:Engine", engine={"token_rate": 5})
    (said,) = (one.text for one in findings if one.subject == "processor")
    given = json.loads(said.partition("ValueError: ")[2])
    assert given == {"model": str(tmp_path), "engine": "mine:Engine", "token_rate": 5}


def test_what_the_engines_path_lacks(tmp_path: Path, probe: list[str]) -> None:
    write(tmp_path, QWEN | {"auto_map": {"AutoConfig": "x.Y"}})
    probe[0] = "print('about to'); raise ValueError('one\\ntwo')"
    by_subject = {each.subject: (each.verdict, each.text) for each in found(tmp_path)}
    assert by_subject["its files"][0] == "warning"
    assert "neither preprocessor_config.json nor processor_config.json" in by_subject["its files"][1]
    assert by_subject["remote code"][0] == "warning" and "--trust-remote-code" in by_subject["remote code"][1]
    assert by_subject["processor"] == ("error", "it cannot be loaded: ValueError: one two")
    trusted = found(tmp_path, engine={"trust_remote_code": True})
    assert "remote code" not in {each.subject for each in trusted}


def test_a_processor_without_pictures(tmp_path: Path, probe: list[str]) -> None:
    write(tmp_path, QWEN)
    probe[0] = "print('{}')"
    processor = next(each for each in found(tmp_path) if each.subject == "processor")
    assert processor == Finding("processor", "warning", "it takes no pictures")


@pytest.mark.parametrize(
    ("config", "vision", "verdict", "text"),
    [
        ({"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"]}, "", "ok", "none: a text model"),
        (QWEN, "none", "ok", "none: served without pictures, by --vision none"),
        (QWEN | {"architectures": ["Qwen3ForCausalLM"]}, "", "warning", "as a text model only"),
        ({"model_type": "internvl_chat"}, "", "ok", "path vit: .*split at the first start"),
        ({"model_type": "gemma3"}, "", "ok", "path pixels"),
        (QWEN | {"architectures": ["XForY"]}, "", "error", "no way is known for the pictures of .*XForY"),
    ],
)
def test_the_other_paths(tmp_path: Path, config: dict[str, Any], vision: str, verdict: str, text: str) -> None:
    (finding,) = found(write(tmp_path, config), vision=vision)
    assert (finding.subject, finding.verdict) == ("vision", verdict)
    assert re.search(text, finding.text)


def test_the_cpp_backend_is_refused(tmp_path: Path) -> None:
    (finding,) = found(write(tmp_path, QWEN), engine_name="trtllm")
    assert finding.verdict == "error" and "--engine trtllm takes no pictures" in finding.text
