# SPDX-License-Identifier: Apache-2.0
"""MkDocs hook: rewrite links from a page to repository files that are not part of the built site.

In the repository they are ordinary links. On the site they become their text and the file's path. A link to a missing
file is a warning, which the strict build treats as an error.
"""

import logging
import os
import re
from pathlib import Path
from typing import Any

log = logging.getLogger("mkdocs.hooks.links")

_LINK = re.compile(r"\[(?P<text>[^\]]*)\]\((?P<target>[^)\s#]+)(?:#[^)]*)?\)")


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
        return link["text"] if path.rstrip("/") in link["text"] else f"{link['text']} (`{path}`)"

    return _LINK.sub(rewrite, markdown)
