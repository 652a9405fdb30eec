# SPDX-License-Identifier: Apache-2.0
"""The documentation as a site: its navigation, its figures, and links to the repository."""

import importlib.util
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml

from scripts.bench.docs_plot import PLOT, TABLES, throughput_plot
from tests.support.containers import shutdown_seconds
from tests.support.doc_blocks import DOCS, PAGES, ROOT

FIGURES = sorted((DOCS / "images").glob("*.svg"))
GROUPS = ("Home", "Get started", "Use", "Operate", "Engines", "Results", "Develop")
# What people search for.
TITLES = {
    "Quick start",
    "Supported models",
    "API",
    "CLI reference",
    "Health and metrics",
    "Containers and Kubernetes",
    "LoRA adapters",
    "Benchmarks",
    "Architecture",
    "Troubleshooting",
}
# Hosts of package registries: which one is used is a setting of the reader's system.
REGISTRIES = re.compile(
    r"pypi\.(org|nvidia\.com)|pythonhosted\.org|download\.pytorch\.org|npmjs\.org"
    r"|(deb|security)\.debian\.org|ubuntu\.com/ubuntu|anaconda\.org|crates\.io"
)


class _Loader(yaml.SafeLoader):
    """YAML with MkDocs's tag for variables of the environment."""


_Loader.add_constructor("!ENV", lambda loader, node: loader.construct_sequence(node)[-1])


@pytest.fixture(scope="module")
def nav() -> list[dict[str, Any]]:
    config = yaml.load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"), _Loader)
    return list(config["nav"])


def entries(nav: list[dict[str, Any]]) -> dict[str, str]:
    """Page -> its title in the navigation, groups opened."""
    found: dict[str, str] = {}
    for entry in nav:
        ((title, target),) = entry.items()
        added = entries(target) if isinstance(target, list) else {target: title}
        assert not found.keys() & added.keys()
        found |= added
    return found


def test_the_navigation_has_the_groups_in_order(nav: list[dict[str, Any]]) -> None:
    names = [name for entry in nav for name in entry]
    assert names[: len(GROUPS)] == list(GROUPS)


def test_the_navigation_has_every_page_once(nav: list[dict[str, Any]]) -> None:
    assert sorted(entries(nav)) == sorted(str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md"))


def test_a_page_has_the_title_of_the_navigation(nav: list[dict[str, Any]]) -> None:
    titles = entries(nav)
    assert set(titles.values()) >= TITLES
    for page in DOCS.glob("*.md"):
        first = page.read_text(encoding="utf-8").partition("\n")[0]
        assert first == f"# {titles[page.name]}" or page.name == "index.md"


@pytest.mark.parametrize("page", [*PAGES, DOCS / "requests.md"], ids=lambda page: page.name)
def test_no_page_names_the_host_of_a_package_registry(page: Path) -> None:
    assert not REGISTRIES.search(page.read_text(encoding="utf-8"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_an_image_has_a_text(page: Path) -> None:
    assert "![](" not in page.read_text(encoding="utf-8")


@pytest.mark.parametrize("figure", FIGURES, ids=lambda figure: figure.name)
def test_a_figure_can_be_read_by_all(figure: Path) -> None:
    """By a screen reader, in light and dark, and without a network."""
    text = figure.read_text(encoding="utf-8")
    root = ElementTree.fromstring(text)
    texts = {element.tag.rpartition("}")[2]: element.text for element in root}
    assert texts["title"]
    assert not re.search(r"https?://", text.replace("http://www.w3.org/2000/svg", ""))
    if figure.name != "logo.svg":
        assert texts["desc"]
        assert "prefers-color-scheme: dark" in text


def test_every_figure_is_used() -> None:
    text = "".join(page.read_text(encoding="utf-8") for page in (*PAGES, ROOT / "mkdocs.yml"))
    assert not [figure.name for figure in FIGURES if f"images/{figure.name}" not in text]


def test_the_throughput_plot_is_that_of_the_tables() -> None:
    """`python -m scripts.bench.docs_plot` draws it again."""
    assert PLOT.read_text(encoding="utf-8") == throughput_plot((DOCS / "benchmarks.md").read_text(encoding="utf-8"))


def page_of_tables(figures: tuple[str, ...]) -> str:
    """A page with the tables that the plot reads, one row each. figures: the cells, of which a table takes its number."""
    return "".join(
        f"\n### {table.heading}\n\n| streams | tokens/s |\n|---|---|\n| 8 | {' / '.join(figures[: len(table.cells)])} |\n"
        for table in TABLES
    )


def test_the_throughput_plot_draws_marked_cells_hollow() -> None:
    page = page_of_tables(("1,000", "**2,000**", "3,000*", "4,000*"))
    plot = ElementTree.fromstring(throughput_plot(page))
    dots = [element.attrib["fill"] for element in plot.iter() if element.tag.endswith("circle")]
    cells = sum(len(table.cells) for table in TABLES)
    assert (len(dots), dots.count("var(--paper)")) == (cells, cells - 2 * len(TABLES))


def test_the_throughput_plot_has_a_figure_of_every_peer() -> None:
    with pytest.raises(ValueError, match="zip"):
        throughput_plot(page_of_tables(("1,000", "2,000")))


def test_the_figure_of_a_stop_has_the_documented_seconds() -> None:
    text = (DOCS / "images" / "drain.svg").read_text(encoding="utf-8")
    for column in (1, 2):
        delay, grace, termination = shutdown_seconds(column)
        assert f">{delay} s<" in text
        assert f">{grace} s<" in text
        assert f">killed at {termination} s<" in text


@pytest.fixture(scope="module")
def hook() -> Any:
    spec = importlib.util.spec_from_file_location("docs_links", DOCS / "links.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def rewritten(hook: Any, markdown: str, repository: str | None) -> str:
    page = SimpleNamespace(file=SimpleNamespace(src_uri="page.md"))
    config = hook.on_config({"docs_dir": str(DOCS), "repo_url": repository})
    return str(hook.on_page_markdown(markdown, page=page, config=config, files=None))


def test_links_to_sources_lead_to_the_repository(hook: Any) -> None:
    text = "[keys](../SECURITY.md#keys) [docker](../docker/) [API](api.md#errors) [out](https://host/a)"
    assert rewritten(hook, text, "https://host/owner/name/") == (
        "[keys](https://host/owner/name/blob/main/SECURITY.md#keys) [docker](https://host/owner/name/tree/main/docker)"
        " [API](api.md#errors) [out](https://host/a)"
    )


def test_links_to_sources_are_paths_without_a_repository(hook: Any, caplog: pytest.LogCaptureFixture) -> None:
    assert rewritten(hook, "[keys](../SECURITY.md#keys) [SECURITY.md](../SECURITY.md)", None) == (
        "keys (`SECURITY.md`) SECURITY.md"
    )
    assert not caplog.records
    rewritten(hook, "[gone](../gone.md)", None)
    assert "page.md links to gone.md, which does not exist" in caplog.text


def test_pages_have_edit_buttons_only_with_a_repository(hook: Any) -> None:
    assert hook.on_config({"repo_url": "https://host/owner/name"})["edit_uri"] == "edit/main/docs/"
    assert "edit_uri" not in hook.on_config({"repo_url": None})


def test_a_page_does_not_ask_the_repositorys_host_for_stars(hook: Any) -> None:
    page = hook.on_post_page('<a class="md-source" data-md-component="source">', page=None, config=None)
    assert page == '<a class="md-source">'
    missing = hook.on_post_template('<a data-md-component="source">', template_name="404.html", config=None)
    assert missing == "<a>"


def test_short_code_is_marked_for_the_style_sheet(hook: Any) -> None:
    short, long, block = (
        "<code>--api-key</code>",
        f"<code>{'long ' * 10}</code>",
        "<pre><code><span>x</span></code></pre>",
    )
    page = hook.on_post_page(short + long + block, page=None, config=None)
    assert page == f'<code class="short">--api-key</code>{long}{block}'


def test_cells_of_figures_are_marked_for_the_style_sheet(hook: Any) -> None:
    cells = '<td>497 / <strong>499</strong> / 5.26*</td><td style="x">1,024</td>', "<td>4 API servers</td><td></td>"
    page = hook.on_post_page("".join(cells), page=None, config=None)
    assert page == "".join(cells).replace("<td>497", '<td class="short">497').replace(
        '<td style="x">1', '<td class="short" style="x">1'
    )
