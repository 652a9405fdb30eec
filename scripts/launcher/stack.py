# SPDX-License-Identifier: Apache-2.0
"""The stack: one tritonserver and its frontends, started, supervised and stopped together."""

import os
import secrets
import threading
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Self

from rich.console import Console

from common.files import reason
from common.model_names import VIT
from common.models_state import VARIABLE
from common.served_model import EMBEDDING
from common.vision_path import VisionPath
from frontend.auth import authenticator
from frontend.settings import Settings
from scripts.launcher import environment as environments
from scripts.launcher import page
from scripts.launcher.adapters import with_adapters
from scripts.launcher.budget import RestartBudget
from scripts.launcher.checks import (
    check_before_weights,
    check_formats,
    check_memory,
    check_options,
    check_server,
    check_settings,
    raise_open_files,
)
from scripts.launcher.child_process import ChildProcess
from scripts.launcher.diagnose import describe_exit, explain
from scripts.launcher.display import Display
from scripts.launcher.embedding import embedding_options, wanted_kind, write_state
from scripts.launcher.errors import LaunchError
from scripts.launcher.instances import RepositoryWithInstances, choose_instances
from scripts.launcher.model import ServedModel, resolve_model
from scripts.launcher.model_processes import ModelProcesses
from scripts.launcher.multi_gpu import check_vllm_gpus
from scripts.launcher.options import LaunchOptions, parse_options
from scripts.launcher.ports import choose_ports
from scripts.launcher.readiness import answers_ok, model_states
from scripts.launcher.repository import KEY_VARIABLE, Load, Repository
from scripts.launcher.several import SeveralModels
from scripts.launcher.start_retries import StartRetries, stall
from scripts.launcher.stubs import StuckStubs
from scripts.launcher.supervisor import CrashLoop, Supervisor
from scripts.launcher.trtllm import Trtllm
from scripts.launcher.trtllm_config import engine_name, find_engine

_POLL_S = 0.2
SHARED_MEMORY = Path("/dev/shm")  # nosec B108 # where Triton's stubs put their shared memory
_LOG_LINES_SHOWN = 20
# tritonserver unloads the engine on SIGTERM; an engine that hangs is killed after this time.
TRITON_GRACE_S = 30.0
# For a server that cannot end by itself, after the death of a model's process or a frontend.
DEGRADED_GRACE_S = 3.0
# Time for a frontend to end after the grace period that it grants its requests.
FRONTEND_MARGIN_S = 8.0


class Stack:
    """A stack for a command line of `triton-chat serve`; a context manager that starts and stops it.

    For example `with Stack(["smollm2", "--port", "0"]) as stack: stack.url`. The constructor starts nothing: it checks
    everything that can be checked beforehand and raises LaunchError. arguments: the line, or what was parsed from it.
    """

    def __init__(
        self,
        arguments: Sequence[str] | LaunchOptions,
        *,
        environment: Mapping[str, str] | None = None,
        console: Console | None = None,
    ) -> None:
        # A line is read once only: files that it names may be pipes.
        self.options = arguments if isinstance(arguments, LaunchOptions) else parse_options(arguments)
        self.console = console or Console(stderr=True, highlight=False)
        base = os.environ if environment is None else environment
        check_options(self.options, base)
        check_formats({**base, **self.options.settings})
        check_settings({**base, **self.options.settings})
        self.server = environments.find_triton(self.options.triton)
        check_server(self.server, self.options)
        raise_open_files()
        self.engine = None if self.options.several else find_engine(self.options, base)
        self.ports = choose_ports(self.options)
        self._trtllm: Trtllm | None = None
        self._repository: RepositoryWithInstances | None = None
        # None if there is one model.
        self.several: SeveralModels | None = None
        # The one model, or the first of several.
        self.model: ServedModel
        if self.options.several:
            self._prepare_several(base)
        else:
            self._prepare_one(base)
        self._settings = Settings.load([], self._shared)
        self._page_environment = page.page_environment(base)
        # Frontends that share a port write their counters here, so that each can report all of them to Prometheus. It
        # also has the state file.
        self._counts = TemporaryDirectory(prefix="triton_chat_metrics_", ignore_cleanup_errors=True)
        # The stubs of Python models search the current directory first for modules: tritonserver gets an empty one.
        self._triton_folder = TemporaryDirectory(prefix="triton_chat_tritonserver_", ignore_cleanup_errors=True)
        counts = {"PROMETHEUS_MULTIPROC_DIR": self._counts.name} if self.options.frontends > 1 else {}
        if self.several is None and self.model.kind == EMBEDDING:
            counts[VARIABLE] = str(write_state(Path(self._counts.name)))
        self._frontend_environment = self._shared | counts
        # Set by signal handlers. stopping: end `wait`. hurry: end everything without grace periods.
        self.stopping = threading.Event()
        self.hurry = threading.Event()
        self._key = base.get(KEY_VARIABLE) or secrets.token_hex(16)
        self._parts: list[ChildProcess] = []
        self._supervisor: Supervisor | None = None
        self._retries = StartRetries()
        # When tritonserver, which has failed, is started again; and when it was started last.
        self._start_again_at: float | None = None
        self._begun = 0.0
        self._stuck_stubs = StuckStubs()

    def _prepare_several(self, base: Mapping[str, str]) -> None:
        """Check the models, and make what they are started with."""
        self._shared = environments.server_environment(base, self.options, self.ports)
        check_settings(self._shared)
        self.several = SeveralModels(self.options, self.server, base, self._shared, self.console)
        self.model = self.several.planned[0].model
        self._triton_environment = environments.triton_environment(self._shared, self.options, self.server)

    def _prepare_one(self, base: Mapping[str, str]) -> None:
        """Check the model, and make what it is started with."""
        vision = self.options.settings.get("TRITON_CHAT_VISION") or base.get("TRITON_CHAT_VISION")
        engine = engine_name(self.options, base)
        kind = wanted_kind(self.options)
        if self.engine is None:
            check_vllm_gpus(self.options.engine, base)
        check = partial(check_before_weights, options=self.options, environment=base)
        self.model = resolve_model(self.options.model, self.console, vision, engine, kind, check)
        if self.model.kind == EMBEDDING:
            self.options = embedding_options(self.options, engine)
        names = self.options.served_model_name or (self.model.name,)
        self.options = with_adapters(self.options, self.model, names, trtllm=self.engine is not None)
        self._shared = environments.stack_environment(base, self.options, self.model, self.ports, self.engine)
        if self.engine is not None:
            self._trtllm = Trtllm(self.options, self.engine, self.model, self.server, self._shared)
            self._shared |= self._trtllm.environment
        check_settings(self._shared)
        self._triton_environment = environments.triton_environment(
            self._shared, self.options, self.server, self.model.kind
        )
        if self.engine is None:
            check_memory(self.model, self._triton_environment)
        counts = choose_instances(self.options, self.model, self._triton_environment)
        if counts:
            served = self.options if self._trtllm is None else self._trtllm.options
            self._repository = RepositoryWithInstances(served, counts)

    @property
    def url(self) -> str:
        """Base URL of the OpenAI API without /v1."""
        scheme = "https" if self._settings.tls_certificate else "http"
        return f"{scheme}://{_reachable(self.options.host)}:{self.ports.frontend}"

    @property
    def grpc_url(self) -> str:
        """Address of Triton's gRPC endpoint, host:port, as tritonclient takes it."""
        return self._settings.triton_url

    @property
    def engine_environment(self) -> dict[str, str]:
        """Environment of the engine, for programs that are compared with it."""
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
        """Address of the chat page, or None without one."""
        if not self.options.ui:
            return None
        scheme = "https" if self._settings.tls_certificate else "http"
        return f"{scheme}://{_reachable(self.options.ui_host)}:{self.ports.ui}"

    @property
    def model_names(self) -> tuple[str, ...]:
        """Names of the models that requests may use."""
        if self.several is not None:
            return tuple(name for one in self.several.planned for name in one.spec.names)
        return self._settings.served_model_name

    @property
    def warnings(self) -> list[str]:
        """Warnings about an API or a chat page that other machines can reach."""
        return authenticator.warnings(self._settings) + page.page_warnings(self.options, self._settings)

    @property
    def needs_key(self) -> bool:
        """Whether requests need an API key."""
        return bool(self._settings.api_key) or self._settings.api_keys_file is not None

    @property
    def parts(self) -> tuple[ChildProcess, ...]:
        """The parts that were started: tritonserver first, then the frontends, then the chat page."""
        return tuple(self._parts)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            # Nobody is served yet, and a loading tritonserver ignores SIGTERM.
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

        Of several models each has been loaded or has failed then. Raises LaunchError naming the part that died, or
        after `ready_timeout`, or if every model has failed, or if the logs cannot be written.
        """
        try:
            self._spawn()
        except OSError as error:
            raise LaunchError(
                f"the processes or their logs in {self.options.log_dir} could not be started: {reason(error)}."
            ) from error
        self._begun = time.monotonic()
        # A text model passes by the vision tower, which then loads nothing.
        hidden = () if self.several is not None or self.model.vision is VisionPath.VIT else (VIT,)
        engine = "" if self.several is not None else self._shared.get("TRITON_CHAT_ENGINE") or "vllm"
        with Display(self.console, engine, hidden) as display:
            while not self.stopping.wait(_POLL_S):
                self.check()
                if self._start_again_at is not None:
                    continue
                elapsed = time.monotonic() - self._begun
                states = self._states()
                display.show(states, elapsed)
                if self.several is None and "failed" in states.values():
                    # Perhaps only since the check.
                    self._check_triton()
                    if self._start_again_at is None:
                        raise self._failure(self._parts[0], "tritonserver cannot serve.")
                    continue
                if self.several is not None and self.several.models.settled:
                    self._check_any_loaded()
                late = elapsed > self._start_limit_s()
                # Of several models, one that loads for ever does not keep the others from serving.
                loading = self.several is not None and "loading" in states.values()
                enough = not loading or (late and "ready" in states.values())
                if enough and self._late_part() is None:
                    return
                if late:
                    raise self._late(states)

    def wait(self) -> None:
        """Restart what dies until `stopping` is set; raises LaunchError for a crash loop."""
        while not self.stopping.wait(_POLL_S):
            self.restart_dead()

    def restart_dead(self) -> None:
        """Restart what has died; raises LaunchError naming a part that died too often, the cause and its last lines."""
        if self._supervisor is None:
            self._supervisor = self._supervise()
        self._show_logs()
        self._end_stuck_stubs()
        try:
            self._supervisor.step()
            if self.several is not None:
                self.several.models.step()
        except CrashLoop as loop:
            raise self._failure(loop.part, str(loop)) from loop

    def check(self) -> None:
        """During the start: raises LaunchError naming a part that died, the cause and its last lines."""
        self._show_logs()
        if self._start_again_at is None:
            self._end_stuck_stubs()
            self._check_triton()
        elif time.monotonic() >= self._start_again_at:
            self._start_triton_again()
        for part in self._parts[1:]:
            if (status := part.exit_status()) is not None:
                raise self._failure(part, f"{part.name} {describe_exit(status)}.")

    def _check_triton(self) -> None:
        """Raise LaunchError if tritonserver has ended, unless it is to be started again."""
        part = self._parts[0]
        status = part.exit_status()
        if status is None and self.several is not None:
            # Of several models, the one that failed is loaded again.
            self.several.note_deaths(part.pid)
            return
        # The one model has failed as soon as a process of it has, though tritonserver goes on to load the others.
        what = stall(part.lines(), status)
        if status is None and what is None:
            return
        pause = None if what is None else self._retries.next_pause()
        if pause is None:
            raise self._failure(part, f"{part.name} {what if status is None else describe_exit(status)}.")
        self._log(f"{part.name} {what}; starting it again in {pause:g} s (try {self._retries.tried})")
        part.stop(0.0)
        if self.several is not None:
            self.several.models.server_lost()
        self._start_again_at = time.monotonic() + pause

    def _start_triton_again(self) -> None:
        self._parts[0] = self._parts[0].restart()
        self._start_again_at, self._begun = None, time.monotonic()
        if self.several is not None:
            self.several.models.load_all()

    def _end_stuck_stubs(self) -> None:
        """Kill what tritonserver gave up while it loads, so that the load ends and is tried again."""
        for model in self._stuck_stubs.end(self._parts[0].pid):
            self._log(
                f"tritonserver took a process of model {model} for dead, which had stood still for a moment, and waits "
                "for its end: killing it"
            )
            if self.several is not None:
                self.several.models.load_again(model)

    def stop(self) -> None:
        """Stop the frontends, which finish their requests, then tritonserver; no process is left."""
        if self.several is not None:
            self.several.refuse_commands()
        clients = self._parts[1:]
        for part in clients:
            part.terminate()
        for part in clients:
            drain = self._settings.shutdown_delay + self._settings.grace_period
            part.stop(drain + FRONTEND_MARGIN_S, self.hurry.is_set)
        degraded = self._supervisor is not None and self._supervisor.degraded
        for part in self._parts[:1]:
            part.stop(DEGRADED_GRACE_S if degraded else TRITON_GRACE_S, self.hurry.is_set)
        self._parts.clear()
        self._counts.cleanup()
        self._triton_folder.cleanup()
        for repository in (self._trtllm, self._repository, self.several):
            if repository is not None:
                repository.close()
        # A crashed tritonserver leaves the regions that it shared with its stubs, which are gone by now.
        for left in SHARED_MEMORY.glob(f"{environments.shared_memory_prefix(self.ports)}*"):
            left.unlink(missing_ok=True)

    def _spawn(self) -> None:
        log_dir = self.options.log_dir
        repository = self._repository or self._trtllm or self.several
        options = self.options if repository is None else repository.options
        command = environments.triton_command(self.server, options, self.ports, self._key)
        command += environments.trace_flags(self._shared)
        if self._trtllm is not None:
            command = self._trtllm.command(command)
        log, folder = log_dir / "tritonserver.log", Path(self._triton_folder.name)
        self._parts.append(ChildProcess("tritonserver", command, self._triton_environment, log, folder=folder))
        told = {} if self.several is None else self._load_several(self.several)
        for number in range(1, self.options.frontends + 1):
            name = f"frontend-{number}"
            command = environments.frontend_command()
            environment = self._frontend_environment | told | {"TRITON_CHAT_OWNER": name}
            self._parts.append(ChildProcess(name, command, environment, log_dir / f"{name}.log"))
        if self.options.ui:
            command = page.page_command(self.url, self.options, self.ports.ui, self._settings)
            self._parts.append(ChildProcess(page.NAME, command, self._page_environment, log_dir / f"{page.NAME}.log"))

    def _load_several(self, several: SeveralModels) -> dict[str, str]:
        """Begin to load the models; returns the variables by which frontends learn of them."""
        return several.start(
            Repository(self.triton_http_url, self._key, self.options.ready_timeout),
            ModelProcesses(self.triton_http_url, self.grpc_url, self.metrics_url, lambda: self._parts[0].pid),
            grace_s=self._settings.grace_period,
            port=self.ports.frontend,
            log=self._log,
        )

    def _states(self) -> dict[str, str]:
        """The state of each model during the start, for the display."""
        if self.several is None:
            return model_states(self._parts[0].lines())
        self.several.models.step()
        return {name: state.state for name, state in self.several.models.states.items()}

    def _check_any_loaded(self) -> None:
        if self.several is not None and len(failures := self.several.failures) == len(self.several.planned):
            reasons = "; ".join(f"{name}: {reason}" for name, reason in failures.items())
            raise self._failure(self._parts[0], f"no model could be loaded ({reasons}).")

    def _start_limit_s(self) -> float:
        """Seconds that the start may take: of models that are loaded one after the other, each may take so long."""
        in_turn = self.several is not None and not self.several.together
        return self.options.ready_timeout * (len(self.several.planned) if in_turn and self.several else 1)

    def _log(self, text: str) -> None:
        self.console.print(text, markup=False, soft_wrap=True)

    def _late_part(self) -> ChildProcess | None:
        """A frontend or the chat page that does not serve yet."""
        if not answers_ok(f"{self.url}/health/ready"):
            return self._parts[1]
        return self._parts[-1] if self.ui_url and not answers_ok(f"{self.ui_url}/health") else None

    def _supervise(self) -> Supervisor:
        timeout = self.options.ready_timeout
        return Supervisor(
            self._parts,
            budget=RestartBudget(self.options.restarts),
            load=lambda model: Load(self.triton_http_url, self._key, model, timeout, again=True),
            ready=lambda: answers_ok(f"{self.url}/health/ready"),
            ready_timeout_s=timeout,
            log=self._log,
            models=None if self.several is None else self.several.models,
            stubs=None if self.several is None else self.several.stubs,
        )

    def _show_logs(self) -> None:
        for part in self._parts if self.options.verbose else ():
            for line in part.new_lines():
                self.console.print(f"[{part.name}] {line}", markup=False, soft_wrap=True)

    def _failure(self, part: ChildProcess, what: str) -> LaunchError:
        lines = part.lines()
        return LaunchError(what, explain(lines) or "", tuple(lines[-_LOG_LINES_SHOWN:]))

    def _late(self, states: Mapping[str, str]) -> LaunchError:
        waiting = [name for name, state in states.items() if state != "ready"]
        part = self._parts[0] if waiting else self._late_part() or self._parts[1]
        what = f"not ready after {self._start_limit_s():g} s; still missing: {', '.join(waiting) or part.name}."
        return self._failure(part, f"{what} --ready-timeout gives more time.")


def _reachable(host: str) -> str:
    """The address to connect to, for an address that is listened on."""
    return {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # nosec B104 # translates, does not bind
