# SPDX-License-Identifier: Apache-2.0
"""The chat page as a part of the stack: its command line and its variables."""

import sys
from collections.abc import Mapping

from frontend.auth import authenticator
from frontend.settings import Settings
from scripts.cache import REPOSITORY
from scripts.launcher.options import LaunchOptions

NAME = "chat-page"
# Not given to the page: API keys are not for everybody who can open it.
_WITHHELD = ("TRITON_CHAT_", "OPENAI_", "PYTHON")


def page_command(api_url: str, options: LaunchOptions, port: int, settings: Settings) -> list[str]:
    """The command line of the page. api_url: base URL of the API without /v1."""
    command = [sys.executable, "-P", "-m", "chat_page", "--base-url", f"{api_url}/v1", "--host", options.ui_host]
    command += ["--port", str(port)]
    if settings.tls_certificate is not None:
        certificate = str(settings.tls_certificate)
        # Keys cross both connections, so the page gets the API's TLS.
        command += ["--api-certificate", certificate]
        command += ["--tls-certificate", certificate, "--tls-key", str(settings.tls_key)]
    return command


def page_environment(base: Mapping[str, str]) -> dict[str, str]:
    """The launcher's environment without keys and settings of other programs."""
    kept = {name: value for name, value in base.items() if not name.startswith(_WITHHELD)}
    return kept | {"PYTHONPATH": str(REPOSITORY), "PYTHONUNBUFFERED": "1"}


def page_warnings(options: LaunchOptions, settings: Settings) -> list[str]:
    """Warnings about a page that other machines can reach; none on a loopback address."""
    if not options.ui or authenticator.is_loopback(options.ui_host):
        return []
    warnings = []
    if not settings.api_key and settings.api_keys_file is None:
        warnings.append(
            f"ANYBODY WHO CAN REACH the chat page at {options.ui_host} MAY USE THIS MODEL: no API keys are set"
        )
    if settings.tls_certificate is None:
        warnings.append(
            f"WHAT IS TYPED INTO THE CHAT PAGE CROSSES THE NETWORK IN THE CLEAR at {options.ui_host}: no TLS "
            "(tls_certificate, tls_key); fine only behind a proxy that has it"
        )
    return warnings
