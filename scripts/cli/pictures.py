# SPDX-License-Identifier: Apache-2.0
"""The doctor's checks of pictures and videos: the path of a checkpoint's pictures, and what that path needs."""

import json
import os
import subprocess  # nosec B404 # fixed programs, no shell
from collections.abc import Iterator, Mapping
from pathlib import Path

from common.checkpoint import read_json
from common.vision_path import CONFIG, PROCESSOR_FILES, VisionPath, is_unsplit, may_take_pictures, vision_path
from scripts.launcher.environment import has_gpu, python_command
from scripts.launcher.options import LaunchOptions
from scripts.launcher.trtllm_config import engine_name
from scripts.shared.findings import Finding, check_result
from scripts.shared.weights import weights_problem
from triton_chat import child_environment

# Architectures whose processors and answers the tests compare, on tiny checkpoints with random weights.
TESTED = frozenset(
    {
        "Gemma4ForConditionalGeneration",
        "Glm4vForConditionalGeneration",
        "Glm4vMoeForConditionalGeneration",
        "Idefics3ForConditionalGeneration",
        "InternVLForConditionalGeneration",
        "LlavaForConditionalGeneration",
        "LlavaNextForConditionalGeneration",
        "LlavaOnevisionForConditionalGeneration",
        "MiniCPMV4_6ForConditionalGeneration",
        "Mistral3ForConditionalGeneration",
        "Qwen2VLForConditionalGeneration",
        "Qwen2_5_VLForConditionalGeneration",
        "Qwen3VLForConditionalGeneration",
        "Qwen3VLMoeForConditionalGeneration",
        "Qwen3_5ForConditionalGeneration",
        "SmolVLMForConditionalGeneration",
    }
)
_NO_ANSWERS = "in part: ids and features only, no answers"
_STAND_IN = f"{_NO_ANSWERS}, and a stand-in for the processor's code in the checkpoint"
# Of other architectures: what of them is tested.
PARTLY_TESTED = {
    "Gemma3nForConditionalGeneration": _NO_ANSWERS,
    "KimiVLForConditionalGeneration": _STAND_IN,
    "Phi4MMForCausalLM": _STAND_IN,
}
# Files in vision/ that the runtimes other than torch read.
_RUNTIME_FILES = {
    "onnxruntime": ("model.onnx", "`triton-chat build vit` writes it"),
    "tensorrt": ("model.plan", "`triton-chat build vit --plan` writes it"),
}
_PROBE_TIMEOUT_S = 300
# vLLM's limit where neither the model nor the operator has one.
_ANY_NUMBER = 999


def picture_findings(folder: Path, options: LaunchOptions, environment: Mapping[str, str]) -> Iterator[Finding]:
    """Check what the path of the checkpoint's pictures needs. environment: with the options' settings."""
    wanted = environment.get("TRITON_CHAT_VISION")
    try:
        path = vision_path(folder, wanted, engine_name(options, environment))
    except ValueError as error:
        yield Finding("vision", "error", f"{error}.")
        return
    match path:
        case VisionPath.NONE if (folder / "vision").is_dir():
            # `vit` loads whatever tower is there.
            yield from _tower(folder / "vision", environment)
        case VisionPath.NONE:
            yield _none(folder, wanted)
        case VisionPath.VIT:
            yield from _vit(folder, environment)
        case VisionPath.PIXELS:
            yield Finding("vision", "ok", "path pixels: `preprocessing` resizes pictures, the engine runs the tower")
        case VisionPath.RAW:
            yield Finding(
                "vision", "ok", "path raw: `preprocessing` decodes pictures, the engine runs the processor too"
            )
            yield Finding("tested", "warning", "no: only a test double of TensorRT-LLM was run")
        case VisionPath.ENGINE:
            yield from _engine(folder, options, environment)


def _none(folder: Path, wanted: str | None) -> Finding:
    if wanted == "none":
        return Finding("vision", "ok", "none: served without pictures, by --vision none")
    if may_take_pictures(folder, read_json(folder / CONFIG)):
        return Finding("vision", "warning", "none: the installed vLLM has this architecture as a text model only")
    return Finding("vision", "ok", "none: a text model")


def _vit(folder: Path, environment: Mapping[str, str]) -> Iterator[Finding]:
    if is_unsplit(folder, VisionPath.VIT):
        advice = f"split at the first start; `triton-chat prepare {folder}` does it now"
        yield Finding("vision", "ok", f"path vit: the model `vit` runs the tower. The checkpoint is {advice}")
        return
    yield from _tower(folder / "vision", environment)


def _tower(vision: Path, environment: Mapping[str, str]) -> Iterator[Finding]:
    if not (vision / "config.json").is_file():
        yield Finding("vision", "error", f"'{vision}' has no config.json. Split the checkpoint again.")
        return
    yield check_result("vision", weights_problem(vision), "path vit: the model `vit` runs the tower, which is complete")
    runtime = environment.get("TRITON_CHAT_VIT_RUNTIME", "torch")
    if runtime in _RUNTIME_FILES:
        name, advice = _RUNTIME_FILES[runtime]
        file = Path(environment.get("TRITON_CHAT_VIT_ENGINE") or vision / name)
        problem = None if file.is_file() else f"the runtime {runtime} needs {file}: {advice}."
        yield check_result("vit engine", problem, str(file))


def _engine(folder: Path, options: LaunchOptions, environment: Mapping[str, str]) -> Iterator[Finding]:
    config = read_json(folder / CONFIG)
    yield Finding(
        "vision", "ok", "path engine: `preprocessing` runs the checkpoint's own processor, the engine the rest"
    )
    found = [name for name in PROCESSOR_FILES if (folder / name).is_file()]
    lacking = f"neither {' nor '.join(PROCESSOR_FILES)} is there: copy those of the published checkpoint"
    yield check_result("its files", None if found else lacking, ", ".join(found), "warning")
    configs = (config, *(read_json(folder / name) for name in found))
    if any("auto_map" in one for one in configs) and not options.engine.get("trust_remote_code"):
        advice = "if vLLM asks for it and you trust it: --trust-remote-code"
        yield Finding("remote code", "warning", f"the checkpoint brings code of its own (auto_map); {advice}")
    yield _processor(folder, options, environment)
    architectures = set(config.get("architectures") or ())
    for what in sorted({PARTLY_TESTED[name] for name in architectures & PARTLY_TESTED.keys()}):
        yield Finding("tested", "warning", what)
    if untested := architectures - TESTED - PARTLY_TESTED.keys():
        yield Finding(
            "tested", "warning", f"no: {', '.join(sorted(untested))} is none of the architectures that the tests run"
        )


def _processor(folder: Path, options: LaunchOptions, environment: Mapping[str, str]) -> Finding:
    """Load the processor in a process of its own, which takes some seconds."""
    device = {} if has_gpu(environment) else {"VLLM_TARGET_DEVICE": "cpu"}
    quiet = {"CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1", "VLLM_LOGGING_LEVEL": "ERROR"}
    try:
        done = subprocess.run(  # nosec B603 # fixed program, no shell
            python_command("scripts.cli.processor_probe"),
            input=json.dumps({**options.engine, "model": str(folder), "engine": engine_name(options, environment)}),
            env={**child_environment(os.environ), **device, **quiet},
            capture_output=True,
            text=True,
            timeout=_PROBE_TIMEOUT_S,
        )
    except subprocess.TimeoutExpired:
        return Finding("processor", "error", f"it was not loaded within {_PROBE_TIMEOUT_S} s")
    lines = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines()
    if done.returncode != 0 or not lines:
        return Finding("processor", "error", f"it cannot be loaded: {_reason(lines)}")
    limits = json.loads(lines[-1])
    taken = ", ".join(
        f"{kind}s (at most {most})" if most < _ANY_NUMBER else f"{kind}s" for kind, most in limits.items()
    )
    return check_result("processor", None if limits else "it takes no pictures", f"loads, and takes {taken}", "warning")


def _reason(lines: list[str]) -> str:
    """The last line of a traceback that begins with an error's name, with what follows it."""
    start = next((index for index in reversed(range(len(lines))) if _is_error(lines[index])), len(lines) - 1)
    return " ".join(line.strip() for line in lines[start:]) or "no reason given"


def _is_error(line: str) -> bool:
    return line[:1].isalpha() and "Error" in line.partition(":")[0]
