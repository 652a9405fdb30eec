# SPDX-License-Identifier: Apache-2.0
"""The documentation's tables agree with the code in both directions, and its links lead to files."""

import json
import os
import re
import shlex
import tomllib
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import Counter, Gauge, Histogram

from common.chat.media import PART_OPTIONS, PROCESSOR_OPTIONS
from common.sampling import ENGINE_PARAMETERS
from common.versions import Versions
from engines.engine import STATISTICS
from families.detection import FAMILIES
from families.stylers.base import Styler
from frontend.endpoints import openapi
from frontend.endpoints.responses_input import RENAMED, SAME
from frontend.errors import KINDS, REFUSALS
from frontend.protocol.chat import ChatBody
from frontend.protocol.common import GenerationBody
from frontend.protocol.completions import CompletionBody
from frontend.protocol.embeddings import EmbeddingBody, RerankBody
from frontend.settings import ENV_PREFIX, Settings
from frontend.telemetry import metrics
from frontend.telemetry.exposition import BuildInfo
from scripts.cli import build
from scripts.engine_build.formats import BFLOAT16_GPUS, FORMATS
from scripts.engine_build.presets import PRESETS
from scripts.launcher.model_settings import MODEL_SETTINGS
from scripts.launcher.options import UNNEEDED, LaunchOptions
from tests.support import format_tables
from tests.support.doc_blocks import (
    DOCS,
    FENCE,
    NOTES,
    PAGES,
    ROOT,
    RUNNABLE,
    blocks,
    codes,
    first_line,
    prose,
    rows,
    section,
)
from tests.support.packages import PACKAGES

OTHER_PAGES = (
    "SECURITY.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "docker/README.md",
    "examples/README.md",
    "models/demo_vlm/README.md",
)
CHINESE = tuple(sorted((DOCS / "zh").glob("*.md")))
LINKED = (*PAGES, *CHINESE, DOCS / "requests.md", *(ROOT / name for name in OTHER_PAGES))


def flag(name: str) -> str:
    return "--" + name.replace("_", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_blocks_have_a_language_that_a_test_knows(page: Path) -> None:
    for block in blocks(page):
        if block.language == "json":
            json.loads(block.text)
        elif block.language == "yaml":
            yaml.safe_load(block.text)
        elif block.language == "text":
            assert not re.search(r"^\s*(curl|make|python|triton)", block.text, re.MULTILINE), block.place
        else:
            assert block.language in RUNNABLE, block.place


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_block_is_fenced(page: Path) -> None:
    """An indented block, or one in a list, would not be run."""
    assert not re.search(r"^[ \t]+" + FENCE, page.read_text(encoding="utf-8"), re.MULTILINE)
    assert not re.search(r"\n\n {4,}\S", prose(page))


# Pages in English, and the same in Chinese.
TRANSLATED = {
    ROOT / "README.md": ROOT / "README.zh-CN.md",
    DOCS / "migrating.md": DOCS / "zh" / "migrating.md",
    DOCS / "requests.md": DOCS / "zh" / "requests.md",
}


def in_english(page: Path, target: str) -> str:
    """A link's file by its path in this project, in English if it is translated; without the heading within it."""
    file = Path(os.path.normpath(page.parent / target.partition("#")[0]))
    return str({chinese: english for english, chinese in TRANSLATED.items()}.get(file, file).relative_to(ROOT))


def without_comments(text: str) -> str:
    return re.sub(r"[ \t]+#.*$", "", text, flags=re.MULTILINE)


@pytest.mark.parametrize(("english", "chinese"), TRANSLATED.items(), ids=lambda page: str(page.relative_to(ROOT)))
def test_a_translated_page_is_in_step(english: Path, chinese: Path) -> None:
    """The same headings, blocks, tables and links."""

    def noted_blocks(page: Path) -> list[tuple[str, ...]]:
        found = blocks(page)
        return [(one.language, without_comments(one.text), one.not_run or "", one.prints or "") for one in found]

    def outline(page: Path) -> list[int]:
        return [len(marks) for marks in re.findall(r"^(#+) ", prose(page), re.MULTILINE)]

    def linked(page: Path) -> set[str]:
        own = {"README.md", in_english(english, english.name), in_english(chinese, chinese.name)}
        return {in_english(page, target) for target in links(page)} - own

    assert noted_blocks(english) == noted_blocks(chinese)
    assert outline(english) == outline(chinese)
    assert linked(english) == linked(chinese)
    cells = [[len(row) for row in rows(prose(page))] for page in (english, chinese)]
    assert cells[0] == cells[1]


def test_the_comments_of_chinese_blocks_are_translated() -> None:
    texts = [block.text for chinese in TRANSLATED.values() for block in blocks(chinese) if block.language == "bash"]
    comments = [one for text in texts for one in re.findall(r"[ \t]# (.+)$", text, re.MULTILINE)]
    assert len(comments) > 10
    commands = ("pip install",)
    assert not [one for one in comments if not re.search(r"[\u4e00-\u9fff]", one) and not one.startswith(commands)]


def test_the_readme_says_how_its_blocks_are_tested_and_nothing_else() -> None:
    """Comments stay out of it, and no note is for a block that is no more."""
    for name, notes in NOTES.items():
        page = ROOT / name
        assert "<!--" not in page.read_text(encoding="utf-8")
        assert set(notes) <= {first_line(block.text.splitlines()[0]) for block in blocks(page)}
        assert {value for note in notes.values() for value in note} <= {"not_run", "prints", "model"}


def test_the_figures_of_the_readme_are_those_of_the_benchmarks() -> None:
    measured = {cell for cells in rows((DOCS / "benchmarks.md").read_text(encoding="utf-8")) for cell in cells}
    figures = [cells for cells in rows(prose(ROOT / "README.md")) if len(cells) == 5 and cells[1].isdecimal()]
    assert len(figures) == 8
    assert not [cell for cells in figures for cell in cells[2:] if cell not in measured]


@pytest.mark.parametrize("name", ["README.md", "README.zh-CN.md"])
def test_every_cell_of_the_comparison_has_a_link(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    compared = [cells[1:] for cells in rows(text) if len(cells) == 4]
    assert len(compared) > 15
    assert not [cell for cells in compared for cell in cells if not re.search(r"\](\(|\[)", cell)]
    assert set(re.findall(r"\]\[([\w-]+)\]", text)) == set(re.findall(r"^\[([\w-]+)\]: ", text, re.MULTILINE))


def test_the_numbers_of_formats_in_the_readmes() -> None:
    formats = [len(rows(section("models.md", f"Formats of {of}"))) for of in ("tool calls", "reasoning")]
    for name, found in (("README.md", r"(\d+) formats, found"), ("README.zh-CN.md", r"(\d+) 种格式，由对话模板")):
        assert [*map(int, re.findall(found, (ROOT / name).read_text(encoding="utf-8")))] == formats


def test_the_badges() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (versions,) = re.findall(r"!\[Python (.+)\]", text)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = [one.rpartition(":: ")[2] for one in project["classifiers"] if "Python ::" in one]
    assert versions.split(", ") == named
    assert f"![Licence: {project['license']}]" in text


def links(page: Path) -> list[str]:
    return [target for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)) if not re.match(r"[a-z]+:|#", target)]


@pytest.mark.parametrize("page", LINKED, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files(page: Path) -> None:
    missing = [target for target in links(page) if not (page.parent / target.partition("#")[0]).exists()]
    assert not missing


@pytest.mark.parametrize("page", LINKED, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_named_like_a_file_lead_to_it(page: Path) -> None:
    named = re.findall(r"\[`?([\w./-]+\.(?:py|md|pbtxt|toml|cfg))`?\]\(([^)\s#]+)", prose(page))
    assert not [(label, target) for label, target in named if Path(label).name != Path(target).name]


def test_the_launchers_options() -> None:
    documented = {code for cells in rows(section("options.md", "Launcher options")) for code in codes(cells[0])} - {
        "MODEL"
    }
    # Four fields hold the rest of the command line: --engine-config is read into one of them, and --engine is a name.
    sorted_out = {"given", "settings", "engine", "notes", "engine_name", "named_models"}
    own = {field.name for field in fields(LaunchOptions)} - sorted_out | {"engine_config", "engine"}
    assert documented == {flag(name) for name in own}
    defaults = {codes(cells[0])[-1]: cells[1] for cells in rows(section("options.md", "Launcher options"))}
    for name in (
        "model",
        "host",
        "port",
        "triton_host",
        "triton_http_port",
        "triton_grpc_port",
        "restarts",
        "ui_host",
        "ui_port",
    ):
        assert defaults[flag(name)].strip("`") == str(getattr(LaunchOptions(), name))
    assert {flag(name) for name in UNNEEDED} <= set(codes(section("options.md", "Launcher options")))


def test_the_frontends_options_word_for_word() -> None:
    documented = rows(section("options.md", "Frontend options"))
    code = [
        [f"`{flag(field.name)}`", rendered(field.default), str(field.metadata["about"])] for field in fields(Settings)
    ]
    assert documented == code


def rendered(default: Any) -> str:
    if default is None or default == ():
        return "none"
    if isinstance(default, bool):
        return "on" if default else "off"
    if isinstance(default, tuple | str):
        return f"`{default if isinstance(default, str) else ','.join(default)}`"
    if isinstance(default, float):
        return f"{default:g} s"
    return f"{default // 2**20} MiB" if default % 2**20 == 0 else str(default)


def test_the_presets_of_engines() -> None:
    documented = {codes(cells[0])[0]: cells[1:] for cells in rows(section("engines.md", "Sizes"))}
    assert documented == {
        name: [
            preset.dtype,
            *map(str, (preset.max_batch_size, preset.max_input_len, preset.max_seq_len, preset.max_num_tokens)),
            str(preset.max_tiles),
            str(preset.tp_size * preset.pp_size),
        ]
        for name, preset in PRESETS.items()
    }


def test_the_formats_of_engines() -> None:
    documented = {codes(cells[0])[0]: cells[2:] for cells in rows(section("engines.md", "Quantisation"))}
    for name, found in FORMATS.items():
        kv_cache, calibration, gpu = documented.pop(name)
        assert kv_cache.split(",")[0] == (found.kv_cache or "as `--dtype`")
        assert calibration == ("yes" if found.calibrated else "no")
        assert gpu.startswith(".".join(map(str, max(found.gpus, BFLOAT16_GPUS))))
    assert not documented


def test_the_builds_of_the_text_could_be_run() -> None:
    text = (DOCS / "engines.md").read_text(encoding="utf-8").replace("\\\n", " ")
    lines = re.findall(r"^(?:\.venv/bin/)?triton-chat build (.+)$", text, re.MULTILINE)
    assert len(lines) > 8
    for line in lines:
        assert callable(build.parse_options(shlex.split(line)).build)


def test_the_models_options() -> None:
    documented = [codes(cells[0])[0] for cells in rows(section("options.md", "Model options"))]
    assert documented == sorted(flag(name) for name in MODEL_SETTINGS)


def test_the_variables() -> None:
    table = {codes(cells[0])[0] for cells in rows(section("options.md", "Variables without an option"))}
    options = {field.name for field in (*fields(Settings), *fields(LaunchOptions))} | MODEL_SETTINGS.keys()
    files = [
        path
        for folder in (*PACKAGES, "tests/soak")
        for path in (ROOT / folder).rglob("*")
        if path.suffix in (".py", ".pbtxt")
    ]
    source = "\n".join(path.read_text(encoding="utf-8") for path in files)
    used = set(re.findall(rf"\b{ENV_PREFIX}[A-Z_]*[A-Z]\b", source))
    used.discard("TRITON_CHAT_FIELD_NAME")  # a placeholder in a docstring
    assert used - {ENV_PREFIX + name.upper() for name in options} <= table
    assert {name for name in table if name.startswith(ENV_PREFIX)} <= used


def test_the_endpoints() -> None:
    table = rows(section("api.md", "API"))
    assert {codes(cells[0])[0] for cells in table} == set(openapi.document()["paths"])


def test_the_fields_of_requests() -> None:
    chat = {code for cells in rows(section("api.md", "Chat completions")) for code in codes(cells[0])}
    assert chat == set(ChatBody.model_fields)
    own = {code for cells in rows(section("api.md", "Completions")) for code in codes(cells[0])}
    assert own == set(CompletionBody.model_fields) - set(GenerationBody.model_fields)
    responses = section("api.md", "Responses")
    unchanged = responses.partition("taken as they are:")[2].partition("\n\n")[0]
    assert codes(unchanged) == list(SAME)
    assert set(RENAMED.values()) <= {code for cells in rows(responses) for code in codes(cells[0])}


def test_the_fields_that_nvidias_backend_refuses() -> None:
    """Those of the parameters that only Python engines read."""
    table = rows(section("trtllm.md", "Differences from vLLM"))
    (refused,) = (codes(cells[0]) for cells in table if "top_logprobs" in codes(cells[0]))
    refused.remove("logprobs")
    assert set(refused) - {"echo"} == {one.asked_by for one in ENGINE_PARAMETERS.values()} - {None}
    chat = {code: cells[1] for cells in rows(section("api.md", "Chat completions")) for code in codes(cells[0])}
    assert "trtllm.md#differences-from-vllm" in chat["return_token_ids"]


def test_the_options_of_pictures_and_videos() -> None:
    text = section("api.md", "Pictures and videos")
    parts = {code for cells in rows(text) for code in codes(cells[0]) if len(cells) == 3}
    assert parts == {"detail", *PART_OPTIONS["image"], *PART_OPTIONS["video"]}
    (arguments,) = re.findall(r"any other is a 400: (.*?)\.\s+Each needs", text, re.DOTALL)
    assert codes(arguments) == list(PROCESSOR_OPTIONS)


def test_the_fields_of_embeddings_and_ranks() -> None:
    embeddings = {codes(cells[0])[0] for cells in rows(section("api.md", "Embeddings"))}
    assert embeddings == set(EmbeddingBody.model_fields)
    ranks = {codes(cells[0])[0] for cells in rows(section("api.md", "Rerank and score"))}
    assert ranks == set(RerankBody.model_fields) - {"model"}


def test_the_errors() -> None:
    documented = [
        (int(cells[0]), cells[1].strip("`"), cells[2].strip("`")) for cells in rows(section("api.md", "Errors"))
    ]
    code = [(shape.status, shape.type, shape.code or "null") for shape in (*KINDS.values(), *REFUSALS.values())]
    assert sorted(documented) == sorted(code)


def test_the_families() -> None:
    table = {codes(cells[0])[0]: cells[1] for cells in rows(section("models.md", "Supported models"))}
    assert set(table) == set(FAMILIES)
    for name, family in FAMILIES.items():
        for model_type in family.model_types:
            assert re.search(rf"\b{model_type}\b", table[name])


@pytest.mark.parametrize("table", format_tables.TABLES, ids=lambda table: table.__name__)
def test_the_formats_of_models(table: Callable[[], str]) -> None:
    """`python -m tests.support.format_tables` prints what the page must have."""
    assert f"\n\n{table()}\n" in (DOCS / "models.md").read_text(encoding="utf-8")


def test_the_hooks_of_a_styler() -> None:
    documented = {
        code for cells in rows(section("adding-a-family.md", "A styler, in one file")) for code in codes(cells[0])
    }
    assert documented == {name for name in vars(Styler) if not name.startswith("_")} - {"name"}


def test_the_metrics() -> None:
    table = {codes(cells[0])[0] for cells in rows(section("metrics.md", "Health and metrics"))}
    counted = {metric for metric in vars(metrics).values() if isinstance(metric, Counter | Gauge | Histogram)}
    code = {metric._name + ("_total" if isinstance(metric, Counter) else "") for metric in counted}
    (built,) = BuildInfo(Versions()).collect()
    code |= {built.name} | {f"triton_chat_engine_{name}" for name in STATISTICS}
    assert table == code | {"triton_chat_postprocessing_streams"}
