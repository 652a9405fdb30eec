# SPDX-License-Identifier: Apache-2.0
"""`triton-chat models`: list, load, unload and reload the models of a running server with several of them."""

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

import httpx
from rich.console import Console
from rich.table import Table

from common.command_line import Parser, checked, web_url
from common.files import reason
from scripts.launcher.control import link_path
from scripts.launcher.operations import APPLY, LIST, LOAD, RELOAD, UNLOAD
from scripts.launcher.options import LaunchOptions
from scripts.shared.errors import CommandError

_ABOUT = """Change what a running server of `triton-chat serve --models` serves. The command ends when it is done."""
_EXAMPLES = """examples:
  triton-chat models list
  triton-chat models unload qwen3
  triton-chat models load qwen3
  triton-chat models reload qwen3     loads it beside the one that serves, if there is memory for both
  triton-chat models apply            does what has changed in the file of models
  triton-chat models list --url http://10.0.0.5:9997 --admin-key $KEY"""
_ABOUT_VERBS = {
    LIST: "every model: its state, the requests in it, the seconds that its last load took",
    LOAD: "load a model that is not loaded",
    UNLOAD: "let its running requests end, and unload a model",
    RELOAD: "load a model again, with what has changed in its checkpoint",
    APPLY: "read the file of models again: load what is new, unload what is gone, reload what has changed",
}
_COLUMNS = ("model", "state", "kind", "requests", "load s", "names", "reason")
_KEY = "TRITON_CHAT_ADMIN_KEY"
# The connection; the answer comes when the operation is done, which a large model may take an hour for.
_TIMEOUT = httpx.Timeout(None, connect=10.0)


def main(arguments: Sequence[str] | None = None) -> int:
    """Do one operation and print what it did; returns 0. Raises CommandError with the server's reason if it failed."""
    options = _parse(arguments)
    answer = _ask(options)
    if options.json:
        print(json.dumps(answer, indent=2))
    elif options.verb == LIST:
        Console(highlight=False).print(_table(answer["models"]))
    else:
        print(answer.get("message", "done"))
    return 0


def _ask(options: argparse.Namespace) -> dict[str, Any]:
    path = "/models" if options.verb == LIST else f"/models/{_target(options)}"
    method = "GET" if options.verb == LIST else "POST"
    headers: dict[str, str] = {}
    if options.url is None:
        link = link_path(options.port)
        if not link.is_symlink():
            raise CommandError(f"no server with several models runs at port {options.port}.", "--port names another.")
        # The socket itself has a shorter path, within the kernel's limit.
        transport, base = httpx.HTTPTransport(uds=str(link.readlink())), "http://localhost"
        where = f"the server at port {options.port}"
    else:
        transport, base = httpx.HTTPTransport(), f"{options.url.rstrip('/').removesuffix('/v1')}/admin"
        where = options.url
        if options.admin_key:
            headers["Authorization"] = f"Bearer {options.admin_key}"
    try:
        with httpx.Client(transport=transport, timeout=_TIMEOUT, headers=headers) as client:
            response = client.request(method, base + path)
    except httpx.TransportError as error:
        raise CommandError(f"{where} does not answer: {reason(error)}.") from error
    return _read(response, where)


def _target(options: argparse.Namespace) -> str:
    return APPLY if options.verb == APPLY else f"{quote(options.name, safe='')}/{options.verb}"


def _read(response: httpx.Response, where: str) -> dict[str, Any]:
    """The answer's JSON. Raises CommandError with the reason in it if it is a failure."""
    try:
        answer = response.json()
    except ValueError:
        answer = None
    if response.status_code == 200 and isinstance(answer, dict):
        return answer
    reason = answer.get("error") if isinstance(answer, dict) else None
    # An error of the API is an object, as OpenAI's.
    text = reason.get("message") if isinstance(reason, dict) else reason
    if response.status_code in (401, 403, 404) and where.startswith("http") and not isinstance(reason, str):
        hint = f"--admin-key or {_KEY} gives the key of a server that was started with one."
        raise CommandError(f"{where} refused: {text or response.status_code}", hint)
    raise CommandError(str(text or f"{where} answered with status {response.status_code}"))


def _table(models: Mapping[str, Mapping[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in _COLUMNS:
        table.add_column(column, justify="right" if column in ("requests", "load s") else "left")
    for name, model in models.items():
        texts = (name, *(_text(model.get(key)) for key in ("state", "kind", "requests", "load_seconds")))
        table.add_row(*texts, ", ".join(model.get("names") or ()), _text(model.get("reason")))
    return table


def _text(value: object) -> str:
    return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(
        prog="triton-chat models",
        description=_ABOUT,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    common = Parser(add_help=False)
    port = LaunchOptions().port
    common.add_argument("--port", type=int, default=port, help=f"port of a server on this machine (default {port})")
    common.add_argument("--url", type=checked(web_url), help="a server elsewhere, which was started with --admin-key")
    common.add_argument("--admin-key", default=os.environ.get(_KEY), help=f"its key (default: ${_KEY})")
    common.add_argument("--json", action="store_true", help="print the server's answer as JSON")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="COMMAND")
    for verb, about in _ABOUT_VERBS.items():
        added = verbs.add_parser(verb, parents=[common], help=about, description=about)
        if verb in (LOAD, UNLOAD, RELOAD):
            added.add_argument("name", metavar="NAME", help="the model, as `list` shows it")
    options = parser.parse_args(sys.argv[1:] if arguments is None else arguments)
    if options.verb == APPLY and options.url is not None:
        parser.error("apply reads a file of the server's machine, and is done there: without --url")
    return options
