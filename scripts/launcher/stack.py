# SPDX-License-Identifier: Apache-2.0
"""The stack: one tritonserver and the frontends before it, started, watched and stopped together."""

import os
import secrets
import signal
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Self

from rich.console import Console

from frontend.auth import authenticator
from frontend.settings import Settings
from scripts.launcher import environment as environments
from scripts.launcher import page
from scripts.launcher.budget import RestartBudget
from scripts.launcher.checks import check_memory, check_server, check_settings
from scripts.launcher.diagnose import describe_exit, explain
from scripts.launcher.display import Display
from scripts.launcher.errors import LaunchError
from scripts.launcher.model import ServedModel, resolve_model
from scripts.launcher.multi_gpu import check_vllm_gpus
from scripts.launcher.options import LaunchOptions, parse_options
from scripts.launcher.ports import choose_ports
from scripts.launcher.processes import Part
from scripts.launcher.readiness import answers_ok, model_states
from scripts.launcher.repository import Load
from scripts.launcher.supervisor import CrashLoop, Supervisor
from scripts.launcher.trtllm import Trtllm
from scripts.launcher.trtllm_config import find_engine

_POLL_S = 0.2
SHARED_MEMORY = Path("/dev/shm")  # nosec B108 # where Triton's stubs put their shared memory
_LOG_LINES_SHOWN = 20
# tritonserver unloads the engine on SIGTERM; an engine that hangs then is ended.
TRITON_GRACE_S = 30.0
# One that cannot end by itself, after the death of a model's process or a frontend, need not be waited for so long.
WOUNDED_GRACE_S = 3.0
# How a tritonserver ends that crashes while it loads. 2.51 does so now and then on a machine short of CPU time (a lock
# that its stubs share times out), and not when it is started once more.
CRASHES = (-signal.SIGABRT, -signal.SIGSEGV, -signal.SIGBUS)
# What a frontend may take beyond the grace period that it grants its requests.
FRONTEND_MARGIN_S = 8.0


class Stack:
    """A context manager for tests as well: `with Stack(["smollm2", "--port", "0"]) as stack: stack.url`.

    The constructor checks all that can be found out beforehand and raises LaunchError; it starts nothing.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        console: Console | None = None,
    ) -> None:
        self.options: LaunchOptions = parse_options(arguments)
        self.console = console or Console(stderr=True, highlight=False)
        base = os.environ if environment is None else environment
        self.server = environments.find_triton(self.options.triton)
        check_server(self.server, self.options)
        self.engine = find_engine(self.options, base)
        if self.options.ui:
            page.check_page()
        self.ports = choose_ports(self.options)
        self.model: ServedModel = resolve_model(self.options.model, self.console)
        self._shared = environments.stack_environment(base, self.options, self.model, self.ports, self.engine)
        self._trtllm = None
        if self.engine is None:
            check_vllm_gpus(self.options.engine, self._shared)
        else:
            self._trtllm = Trtllm(self.options, self.engine, self.model, self.server, self._shared)
            self._shared |= self._trtllm.environment
        check_settings(self._shared)
        self._settings = Settings.load([], self._shared)
        self._triton_environment = environments.triton_environment(self._shared, self.options, self.server)
        if self.engine is None:
            check_memory(self.model, self._triton_environment)
        self._page_environment = page.page_environment(base)
        # Where frontends that share a port count together, so that each can tell Prometheus about all of them.
        self._counts = TemporaryDirectory(prefix="triton_chat_metrics_", ignore_cleanup_errors=True)
        # Python's stubs search their current directory for modules first: tritonserver gets an empty one.
        self._triton_folder = TemporaryDirectory(prefix="triton_chat_tritonserver_", ignore_cleanup_errors=True)
        counts = {"PROMETHEUS_MULTIPROC_DIR": self._counts.name} if self.options.frontends > 1 else {}
        self._frontend_environment = self._shared | counts
        # Set from a signal handler: stop waiting; do not wait for anything any more.
        self.stopping = threading.Event()
        self.hurry = threading.Event()
        self._key = secrets.token_hex(16)
        self._parts: list[Part] = []
        self._supervisor: Supervisor | None = None
        self._crashed_once = False

    @property
    def url(self) -> str:
        """Base URL of the OpenAI API without /v1."""
        scheme = "https" if self._settings.tls_certificate else "http"
        return f"{scheme}://{_reachable(self.options.host)}:{self.ports.frontend}"

    @property
    def grpc_url(self) -> str:
        """host:port of Triton's gRPC endpoint, as tritonclient takes it."""
        return self._settings.triton_url

    @property
    def engine_environment(self) -> dict[str, str]:
        """The environment that the engine runs in, for whatever is to be compared with it."""
        return dict(self._triton_environment)

    @property
    def triton_http_url(self) -> str:
        """Base URL of Triton's HTTP endpoint."""
        return f"http://{_reachable(self.options.triton_host)}:{self.ports.http}"

    @property
    def metrics_url(self) -> str:
        """URL of Triton's metrics."""
        return f"http://{_reachable(self.options.triton_host)}:{self.ports.metrics}/metrics"

    @property
    def ui_url(self) -> str | None:
        """Address of the chat page; None where there is none."""
        if not self.options.ui:
            return None
        scheme = "https" if self._settings.tls_certificate else "http"
        return f"{scheme}://{_reachable(self.options.ui_host)}:{self.ports.ui}"

    @property
    def model_names(self) -> tuple[str, ...]:
        """What requests may call the model."""
        return self._settings.served_model_name

    @property
    def warnings(self) -> list[str]:
        """What is open to whom, where others than this machine can reach the API or the chat page."""
        return authenticator.warnings(self._settings) + page.page_warnings(self.options, self._settings)

    @property
    def needs_key(self) -> bool:
        """Whether requests need an API key."""
        return bool(self._settings.api_key) or self._settings.api_keys_file is not None

    @property
    def parts(self) -> tuple[Part, ...]:
        """The parts that were started: tritonserver first, then the frontends, then the chat page."""
        return tuple(self._parts)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            # Nobody is served yet, and a tritonserver that is loading does not listen to SIGTERM.
            self.hurry.set()
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start every part and wait until a request can be served, or until `stopping` is set.

        Raises LaunchError naming the part that died, or after `ready_timeout`.
        """
        self._spawn()
        begun = time.monotonic()
        with Display(self.console) as display:
            while not self.stopping.wait(_POLL_S):
                elapsed = time.monotonic() - begun
                self.check()
                states = model_states(self._parts[0].lines())
                display.show(states, elapsed)
                if "failed" in states.values():
                    raise self._failure(self._parts[0], "tritonserver cannot serve.")
                if self._late_part() is None:
                    return
                if elapsed > self.options.ready_timeout:
                    raise self._late(states)

    def wait(self) -> None:
        """Return when `stopping` is set. What dies until then is started anew; raises LaunchError for a crash loop."""
        while not self.stopping.wait(_POLL_S):
            self.mend()

    def mend(self) -> None:
        """Start what has died anew; raises LaunchError naming a part that died too often, why, and its last lines."""
        if self._supervisor is None:
            self._supervisor = self._supervise()
        self._show_logs()
        try:
            self._supervisor.step()
        except CrashLoop as loop:
            raise self._failure(loop.part, str(loop)) from loop

    def check(self) -> None:
        """For the start: raises LaunchError naming a part that died, why, and its last lines."""
        self._show_logs()
        for index, part in enumerate(self._parts):
            status = part.exit_status()
            if status in CRASHES and index == 0 and not self._crashed_once:
                self._crashed_once = True
                self.console.print(f"{part.name} {describe_exit(status)} while it loaded; starting it once more")
                part.stop(0.0)
                self._parts[0] = part.again()
            elif status is not None:
                raise self._failure(part, f"{part.name} {describe_exit(status)}.")

    def stop(self) -> None:
        """Stop the frontends, which let their requests finish, then tritonserver; nothing of any stays behind."""
        clients = self._parts[1:]
        for part in clients:
            part.terminate()
        for part in clients:
            part.stop(self._settings.grace_period + FRONTEND_MARGIN_S, self.hurry.is_set)
        wounded = self._supervisor is not None and self._supervisor.wounded
        for part in self._parts[:1]:
            part.stop(WOUNDED_GRACE_S if wounded else TRITON_GRACE_S, self.hurry.is_set)
        self._parts.clear()
        self._counts.cleanup()
        self._triton_folder.cleanup()
        if self._trtllm is not None:
            self._trtllm.close()
        # A tritonserver that crashed leaves the regions that it shared with its stubs, which are gone by now.
        for left in SHARED_MEMORY.glob(f"{environments.shared_memory_prefix(self.ports)}*"):
            left.unlink(missing_ok=True)

    def _spawn(self) -> None:
        log_dir = self.options.log_dir
        options = self.options if self._trtllm is None else self._trtllm.options
        command = environments.triton_command(self.server, options, self.ports, self._key)
        command += environments.trace_flags(self._shared)
        if self._trtllm is not None:
            command = self._trtllm.command(command)
        log, folder = log_dir / "tritonserver.log", Path(self._triton_folder.name)
        self._parts.append(Part("tritonserver", command, self._triton_environment, log, folder=folder))
        for number in range(1, self.options.frontends + 1):
            name = f"frontend-{number}"
            command = environments.frontend_command()
            environment = self._frontend_environment | {"TRITON_CHAT_OWNER": name}
            self._parts.append(Part(name, command, environment, log_dir / f"{name}.log"))
        if self.options.ui:
            command = page.page_command(self.url, self.options, self.ports.ui, self._settings)
            self._parts.append(Part(page.NAME, command, self._page_environment, log_dir / f"{page.NAME}.log"))

    def _late_part(self) -> Part | None:
        """A frontend or the chat page where it does not serve yet."""
        if not answers_ok(f"{self.url}/health/ready"):
            return self._parts[1]
        return self._parts[-1] if self.ui_url and not answers_ok(f"{self.ui_url}/health") else None

    def _supervise(self) -> Supervisor:
        timeout = self.options.ready_timeout
        return Supervisor(
            self._parts,
            budget=RestartBudget(self.options.restarts),
            load=lambda model: Load(self.triton_http_url, self._key, model, timeout),
            ready=lambda: answers_ok(f"{self.url}/health/ready"),
            ready_timeout_s=timeout,
            say=lambda text: self.console.print(text, markup=False, soft_wrap=True),
        )

    def _show_logs(self) -> None:
        for part in self._parts if self.options.verbose else ():
            for line in part.new_lines():
                self.console.print(f"[{part.name}] {line}", markup=False, soft_wrap=True)

    def _failure(self, part: Part, what: str) -> LaunchError:
        lines = part.lines()
        return LaunchError(what, explain(lines) or "", tuple(lines[-_LOG_LINES_SHOWN:]))

    def _late(self, states: Mapping[str, str]) -> LaunchError:
        waiting = [name for name, state in states.items() if state != "ready"]
        part = self._parts[0] if waiting else self._late_part() or self._parts[1]
        what = f"not ready after {self.options.ready_timeout:g} s; still missing: {', '.join(waiting) or part.name}."
        return self._failure(part, f"{what} --ready-timeout gives more time.")


def _reachable(host: str) -> str:
    """The address to connect to for one that was listened on."""
    return {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # nosec B104 # translates, does not bind
