# SPDX-License-Identifier: Apache-2.0
"""Several models by --models and --model NAME=MODEL."""

import shlex
from pathlib import Path

import pytest

from common.adapters import AdapterSource, read_sources
from scripts.launcher import LaunchError
from scripts.launcher.model_settings import MODEL_SETTINGS
from scripts.launcher.models_file import KEYS, ModelSpec, read_models
from scripts.launcher.options import parse_options
from scripts.launcher.vllm_options import vllm_options
from tests.support.doc_blocks import DOCS, blocks, codes, rows, section

EXAMPLE = """
models:
  qwen3:
    model: /models/Qwen3-0.6B
    aliases: [gpt-4o, chat]
    devices: [0, 1]
    max_model_len: 16k
    sampling: {temperature: 0.6, top_p: 0.95}
    enable_thinking: false
    max-in-flight: 8
    tensor_parallel_size: 2
    gpu_memory_utilization: 0.4
    environment: {VLLM_USE_V2: true}
  smol:
    model: smollm2
    styler: default
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "models.yaml"
    path.write_text(EXAMPLE)
    return path


def read(file: Path, line: str = "") -> dict[str, ModelSpec]:
    return {spec.name: spec for spec in read_models(parse_options(["--models", str(file), *shlex.split(line)]))}


def refusal(tmp_path: Path, text: str) -> str:
    path = tmp_path / "models.yaml"
    path.write_text(text)
    with pytest.raises(LaunchError) as refused:
        read(path)
    message = str(refused.value)
    assert message.startswith(str(path)) and "\n" not in message
    return message.removeprefix(f"{path}: ")


def test_an_entry_is_a_command_line_as_a_mapping(file: Path) -> None:
    qwen3 = read(file, "--port 1")["qwen3"]
    alone = parse_options(
        shlex.split(
            "/models/Qwen3-0.6B --max-model-len 16k --no-enable-thinking --max-in-flight 8 --port 1 "
            "--served-model-name gpt-4o chat --tensor-parallel-size 2 --gpu-memory-utilization 0.4 "
            """--override-generation-config '{"temperature": 0.6, "top_p": 0.95}'"""
        )
    )
    assert qwen3.options == alone
    assert qwen3.names == ("qwen3", "gpt-4o", "chat")
    assert qwen3.devices == (0, 1)
    assert qwen3.environment == {"VLLM_USE_V2": "true"}


@pytest.mark.parametrize("modules", ["{sql: /a/sql, poet: /a/p}", "[sql=/a/sql, {name: poet, path: /a/p}]"])
def test_adapters_of_an_entry(tmp_path: Path, modules: str) -> None:
    path = tmp_path / "models.yaml"
    more = f"enable_lora: true, lora_modules: {modules}, allowed_lora_path: [/a, /b]"
    path.write_text(f"models: {{base: {{model: smollm2, {more}}}}}")
    engine = read(path)["base"].options.engine
    assert engine["enable_lora"] is True and engine["allowed_lora_path"] == ["/a", "/b"]
    assert read_sources(engine["lora_modules"]) == (AdapterSource("sql", "/a/sql"), AdapterSource("poet", "/a/p"))


def test_adapters_of_two_models_have_names_of_their_own(tmp_path: Path) -> None:
    one = "{model: smollm2, enable_lora: true, lora_modules: {sql: /a}}"
    assert "the name 'sql' is given to both 'a' and 'b'" in refusal(tmp_path, f"models: {{a: {one}, b: {one}}}")
    wrong = "models: {a: {model: smollm2, enable_lora: true, lora_modules: [sql]}}"
    assert refusal(tmp_path, wrong).startswith("model 'a': lora_modules: expected NAME=PATH")


def test_flags_of_the_server_are_each_model_s_and_entries_override_them(file: Path) -> None:
    specs = read(file, "--max-model-len 4k --styler qwen3 --dtype half --port 5 --max-in-flight 3")
    assert [spec.options.max_model_len for spec in specs.values()] == [16000, 4000]
    assert [spec.options.styler for spec in specs.values()] == ["qwen3", "default"]
    assert [spec.options.engine["dtype"] for spec in specs.values()] == ["half", "half"]
    assert [spec.options.settings["TRITON_CHAT_MAX_IN_FLIGHT"] for spec in specs.values()] == ["8", "3"]
    assert specs["smol"].devices is None


def test_models_by_name_on_the_command_line_share_the_flags() -> None:
    options = parse_options(shlex.split("--model qwen3=/m/q --model smol=smollm2 --max-model-len 2k --dtype half"))
    assert options.several
    assert [(spec.name, spec.options.model, spec.options.max_model_len) for spec in read_models(options)] == [
        ("qwen3", "/m/q", 2000),
        ("smol", "smollm2", 2000),
    ]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("--models m.yaml --model a=b", "a was given as well"),
        ("--models m.yaml smollm2", "smollm2 was given as well"),
        ("--model a=b smollm2", "smollm2 was given as well"),
        ("--model a=b --model a=c", "--model a= is given twice"),
        ("--model a --model b", "several need names: --model NAME="),
        ("--model=vit=b", "'vit' is not a name of a model"),
        ("--models m.yaml --served-model-name a", "--served-model-name is for one model"),
        ("--model a=b --engine-dir /e", "--engine-dir is for one model"),
    ],
)
def test_which_models_are_meant_must_be_clear(line: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse_options(shlex.split(line))
    assert said in capsys.readouterr().err


def test_the_path_of_a_folder_may_hold_an_equals_sign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a=b").mkdir()
    monkeypatch.chdir(tmp_path)
    for path in ("a=b", "./c=d", "/models/e=f"):
        options = parse_options(["--model", path])
        assert (options.model, options.several) == (path, False)


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("{}", "the key 'model' is missing: a checkpoint folder, a hub id, or a prepared model's name."),
        ("{model: x, alias: [b]}", "unknown key 'alias'; did you mean 'aliases'?"),
        ("{model: x, max_modellen: 5}", "unknown key 'max_modellen'; did you mean 'max_model_len'?"),
        (
            "{model: x, gpu_memory_utilisation: 1}",
            "unknown key 'gpu_memory_utilisation'; did you mean 'gpu_memory_utilization'?",
        ),
        ("{model: x, zzz: 1}", "unknown key 'zzz': neither the launcher nor the engine vllm has it."),
        # vLLM's _api_process_count is not for users.
        ("{model: x, api_process_count: 1}", "unknown key 'api_process_count': neither "),
        ("{model: x, port: 1}", "port is for the whole server and not allowed here; use the flag --port."),
        ("{model: x, triton: /t}", "triton is for the whole server and not allowed here; use the flag --triton."),
        ("{model: x, api_key: s}", "api_key is for the whole server and not allowed here; use the flag --api-key."),
        ("{model: x, served_model_name: y}", "`aliases` has the others."),
        (
            "{model: x, max_model_len: many}",
            "--max-model-len must be a whole number above 0, such as 16384 or 16k, not 'many'.",
        ),
        ("{model: x, max_in_flight: 0}", "--max-in-flight='0': expected a whole number from 1 to 1000000."),
        (
            "{model: x, dtype: float17}",
            "--dtype must be one of auto, half, float16, bfloat16, float, float32, not 'float17'",
        ),
        ("{model: x, tensor_parallel_size: two}", "--tensor-parallel-size must be a whole number, not 'two'."),
        ("{model: x, vit_dtype: half}", "--vit-dtype='half': expected one of auto, float32, bfloat16, float16"),
        ("{model: x, styler: [a]}", 'styler must be one value, not the list ["a"].'),
        ("{model: x, devices: [a]}", 'devices must be a list of numbers of GPUs such as [0, 1], not the list ["a"].'),
        ("{model: x, devices: []}", "devices must be a list of numbers "),
        ("{model: x, devices: [1, 1]}", "devices names a GPU twice: [1, 1]."),
        ("{model: x, sampling: {temprature: 1}}", "sampling: unknown key 'temprature'; did you mean 'temperature'?"),
        ("{model: x, sampling: {top_p: high}}", "sampling: top_p must be a number, not the text high."),
        ("{model: x, engine: llmapi, sampling: {top_p: 1}}", "sampling is for the engine vllm, not llmapi: "),
        (
            "{model: x, environment: {CUDA_VISIBLE_DEVICES: 1}}",
            "environment: CUDA_VISIBLE_DEVICES is written as `devices`.",
        ),
        (
            "{model: x, environment: {TRITON_CHAT_STYLER: a}}",
            "environment: TRITON_CHAT_STYLER is an option: put it beside ",
        ),
        ("{model: x, seed: 2020-01-01}", "seed has a value that JSON cannot express: "),
        (
            "smollm2",
            "expected options such as `model: Qwen/Qwen3-0.6B`, not the text smollm2. Write qwen3: {model: smollm2}",
        ),
        ("[model: smollm2]", 'not the list [{"model": "smollm2"}]. Leave out the dashes before its options.'),
        ("[smollm2]", 'not the list ["smollm2"]. For example models: {qwen3: {model: Qwen/Qwen3-0.6B}}'),
        ("", "not nothing. For example models: {qwen3: {model: Qwen/Qwen3-0.6B}}"),
        ("7", "not 7. For example "),
    ],
)
def test_a_wrong_entry_is_named(tmp_path: Path, entry: str, said: str) -> None:
    if not vllm_options() and any(key in entry for key in (" dtype", "tensor", "zzz", "api_process")):
        pytest.skip("needs vLLM")
    message = refusal(tmp_path, f"models: {{qwen3: {entry}}}")
    assert message.startswith("model 'qwen3': ")
    assert said in message


def test_the_message_of_the_documentation(tmp_path: Path) -> None:
    if not vllm_options():
        pytest.skip("needs vLLM")
    page = (Path(__file__).parents[4] / "docs" / "several-models.md").read_text(encoding="utf-8")
    message = refusal(tmp_path, "models: {qwen3: {model: x, gpu_memory_utilisation: 1}}")
    assert f"```text\nmodels.yaml: {message}\n```" in page


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "expected `models:` with a name for each model, and its options below the name."),
        ("models: [a]", "expected `models:` with a name for each model, and its options below the name."),
        (
            "models: {a: {model: x}}\nport: 1",
            "unknown key 'port'; beside `models` there is none: other options are flags.",
        ),
        ("models: {a: {model: x}, a: {model: y}}", "'a' is there twice"),
        ("models: {a: {model: x, model: y}}", "'model' is there twice"),
        ("models: {a/b: {model: x}}", "model 'a/b': 'a/b' is not a name of a model"),
        ("models: {vit: {model: x}}", "it looks like a step of one"),
        ("models: {a: {model: x, aliases: [b]}, b: {model: y}}", "the name 'b' is given to both 'a' and 'b'."),
        ("models: {a: {model: x, aliases: [a]}}", "the name 'a' is given to both 'a' and 'a'."),
        ("models: {", "line 1, column "),
    ],
)
def test_a_wrong_file_is_named(tmp_path: Path, text: str, said: str) -> None:
    assert said in refusal(tmp_path, text)


def test_a_missing_file_is_named() -> None:
    with pytest.raises(LaunchError, match=r"--models /nowhere\.yaml: No such file or directory"):
        read(Path("/nowhere.yaml"))


def test_a_file_that_is_no_yaml_is_named_with_the_line(tmp_path: Path) -> None:
    path = tmp_path / "models.yaml"
    path.write_text("models:\n  a: [")
    with pytest.raises(LaunchError) as caught:
        read(path)
    assert str(caught.value).startswith(f"{path}: line 2, column 7: ") and "unicode" not in str(caught.value)


def test_options_of_other_engines_are_theirs(tmp_path: Path) -> None:
    path = tmp_path / "models.yaml"
    path.write_text("models: {a: {model: x, engine: 'mine:Engine', script: /s.json}}")
    assert read(path)["a"].options.engine == {"script": "/s.json"}


def test_the_example_of_the_documentation(tmp_path: Path) -> None:
    (example,) = (block for block in blocks(DOCS / "several-models.md") if block.language == "yaml")
    path = tmp_path / "models.yaml"
    path.write_text(example.text)
    specs = read(path)
    assert [(spec.name, spec.devices, spec.options.kind) for spec in specs.values()] == [
        ("qwen3", (0,), None),
        ("gemma3", (1, 2), None),
        ("embedder", (0,), "embedding"),
    ]


def test_the_documented_keys() -> None:
    documented = {code for cells in rows(section("several-models.md", "The file"))[:-2] for code in codes(cells[0])}
    assert documented == KEYS - MODEL_SETTINGS.keys()


def test_a_key_that_is_no_text(tmp_path: Path) -> None:
    assert "a key is not text" in refusal(tmp_path, "models: {a: {model: {{ path }}}}")
