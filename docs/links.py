# SPDX-License-Identifier: Apache-2.0
"""MkDocs hooks: links from pages to files of the repository that are not part of the built site, and short code.

In the repository they are ordinary links. On the site they lead to the repository if DOCS_REPO_URL names it; otherwise
they become their text and the file's path. A link to a missing file is a warning, which the strict build treats as an
error.
"""

import logging
import os
import re
from pathlib import Path
from typing import Any

log = logging.getLogger("mkdocs.hooks.links")

BRANCH = "main"
_LINK = re.compile(r"\[(?P<text>[^\]]*)\]\((?P<target>[^)\s#]+)(?P<anchor>#[^)]*)?\)")
# Material's script asks GitHub for the number of stars behind an element with this attribute.
_STARS = ' data-md-component="source"'
# Code that fits into a line of a telephone; it would break at each hyphen.
_SHORT_CODE = re.compile(r"<code>(?=[^<]{1,36}</code>)")
# A cell with nothing but figures, such as 497 / 499 / 526.
_FIGURES = re.compile(r"<td(?=[^>]*>(?:[\d.,/ *%-]|</?strong>)+</td>)")


def on_config(config: Any) -> Any:
    """Set the address of the edit buttons, which MkDocs refuses without a repository."""
    if config["repo_url"]:
        config["edit_uri"] = f"edit/{BRANCH}/docs/"
    return config


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Any) -> str:
    """Rewrite the links of one page; MkDocs calls this before it renders the page."""
    docs = Path(config["docs_dir"])
    here = (docs / page.file.src_uri).parent

    def rewrite(link: re.Match[str]) -> str:
        target = Path(os.path.normpath(here / link["target"]))
        if ":" in link["target"] or target.is_relative_to(docs):
            return link[0]
        path = os.path.relpath(target, docs.parent)
        if not target.exists():
            log.warning("%s links to %s, which does not exist", page.file.src_uri, path)
        if config["repo_url"]:
            kind = "tree" if target.is_dir() else "blob"
            return f"[{link['text']}]({config['repo_url'].rstrip('/')}/{kind}/{BRANCH}/{path}{link['anchor'] or ''})"
        return link["text"] if path.rstrip("/") in link["text"] else f"{link['text']} (`{path}`)"

    return _LINK.sub(rewrite, markdown)


def on_post_page(output: str, *, page: Any, config: Any) -> str:
    """Mark what stays on one line for the style sheet, and keep the page from loading anything from a network."""
    marked = _FIGURES.sub('<td class="short"', _SHORT_CODE.sub('<code class="short">', output))
    return marked.replace(_STARS, "")


def on_post_template(output: str, *, template_name: str, config: Any) -> str:
    """The same for pages that are not of docs/, such as 404.html."""
    return output.replace(_STARS, "")
