# SPDX-License-Identifier: Apache-2.0
"""The LoRA adapters of an engine: loaded at the start and while it runs, chosen by id, unloaded when unused."""

import asyncio
import logging
import os
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.adapters import (
    CHANGES,
    DEFAULT_MAX_RANK,
    LOAD,
    LOAD_PATH,
    REPLACE,
    UNLOAD,
    Adapter,
    AdapterSource,
    adapter_id,
    check_adapter,
    check_name,
    read_sources,
)
from common.errors import Kind, RequestError

log = logging.getLogger("tensorrt_llm")
# Adapters that may be loaded at once unless the option max_cpu_loras says otherwise.
ROOM = 64


@dataclass(frozen=True, slots=True)
class AdapterOptions:
    """The options about adapters that are not the engine's own.

    sources: loaded at the start. allowed: folders from which adapters may be loaded while it runs; empty for never.
    """

    sources: tuple[AdapterSource, ...] = ()
    allowed: tuple[Path, ...] = ()

    @classmethod
    def take(cls, passed: dict[str, Any]) -> "AdapterOptions":
        """Take `lora_modules` and `allowed_lora_path` out of the options for an engine.

        Raises ValueError for a wrong value, or without `enable_lora`.
        """
        modules, allowed = passed.pop("lora_modules", None), passed.pop("allowed_lora_path", None)
        if (modules or allowed) and not passed.get("enable_lora"):
            raise ValueError("lora_modules and allowed_lora_path need the option enable_lora")
        paths = [allowed] if isinstance(allowed, str) else allowed or ()
        return cls(read_sources(modules) if modules else (), tuple(Path(path).resolve() for path in paths))


class AdapterTable:
    """The adapters of one engine. Used on the engine's event loop only.

    load, unload: bring an adapter into the engine and out of it; `load` raises an error if the engine refuses it. An
    adapter stays in the engine until it is unloaded and no request uses it, so its files are read only once.
    base: the checkpoint's folder. room: adapters at once.
    """

    def __init__(
        self,
        options: AdapterOptions,
        base: Path,
        load: Callable[[Adapter], Awaitable[None]],
        unload: Callable[[Adapter], Coroutine[Any, Any, None]],
        *,
        max_rank: int = DEFAULT_MAX_RANK,
        room: int | None = None,
    ) -> None:
        self._options, self._base, self._max_rank = options, base, max_rank
        self._room = max(ROOM, len(options.sources)) if room is None else room
        self._load, self._unload = load, unload
        self._by_name: dict[str, Adapter] = {}
        # Those inside the engine, also the unloaded ones that requests still use.
        self._by_id: dict[int, Adapter] = {}
        # Every id so far and whose it is: none is used for another adapter.
        self._owners: dict[int, str] = {}
        self._uses: Counter[int] = Counter()
        self._changing = asyncio.Lock()
        self._leaving: set[asyncio.Task[None]] = set()

    @property
    def room(self) -> int:
        """How many adapters the engine must be able to hold in memory."""
        return self._room

    def all(self) -> list[Adapter]:
        """Every adapter that requests can choose, in the order of loading."""
        return list(self._by_name.values())

    async def load_first(self) -> None:
        """Load those of the command line; raises ValueError naming one that cannot be loaded."""
        for source in self._options.sources:
            try:
                await self._add(source)
            except RequestError as error:
                raise ValueError(f"LoRA adapter '{source.name}': {error}") from error

    async def change(self, parameters: Mapping[str, Any]) -> None:
        """Load or unload the adapter that the parameters of a request name, if they name one.

        Raises RequestError if that is not allowed, or cannot be done.
        """
        if not CHANGES & parameters.keys():
            return
        if not self._options.allowed:
            raise RequestError("adapters cannot change while this engine runs: its option allowed_lora_path is not set")
        async with self._changing:
            if UNLOAD in parameters:
                self._remove(self._named(parameters[UNLOAD]))
                return
            try:
                name = check_name(parameters[LOAD])
            except ValueError as error:
                raise RequestError(str(error), param="lora_name") from None
            path = self._allowed(parameters.get(LOAD_PATH))
            old = self._by_name.get(name)
            if old is not None and not parameters.get(REPLACE):
                raise RequestError(f"The adapter '{name}' is loaded already", param="lora_name")
            await self._add(AdapterSource(name, str(path)))
            if old is not None and old.id != self._by_name[name].id:
                self._leave(old)

    @contextmanager
    def use(self, lora_task_id: int) -> Iterator[Adapter]:
        """Keep the adapter with this id in the engine while the context is open.

        Raises RequestError (not_found) if there is none, or if it was unloaded.
        """
        adapter = self._by_id.get(lora_task_id)
        if adapter is None or self._by_name.get(adapter.name) is not adapter:
            raise RequestError(f"There is no adapter with the id {lora_task_id}", kind="not_found", param="model")
        self._uses[adapter.id] += 1
        try:
            yield adapter
        finally:
            self._uses[adapter.id] -= 1
            if self._by_name.get(adapter.name) is not adapter:
                self._leave(adapter)

    async def _add(self, source: AdapterSource) -> None:
        try:
            await asyncio.to_thread(check_adapter, Path(source.path), self._base, self._max_rank)
            found = await asyncio.to_thread(adapter_id, source)
        except (ValueError, OSError) as error:
            missing = not os.path.isdir(source.path)
            kind: Kind = "not_found" if missing else "invalid_request"
            raise RequestError(f"The adapter cannot be loaded: {error}", kind=kind, param="lora_path") from None
        if self._by_id.get(found) == Adapter(source.name, found, source.path):
            # The same files under the same name: unloaded while requests use it, or loaded once more.
            self._by_name[source.name] = self._by_id[found]
            return
        while found in self._by_id or self._owners.get(found, source.name) != source.name:
            found = found % (2**31 - 1) + 1
        if len(self._by_id) >= self._room:
            text = f"{self._room} adapters are loaded, as many as this engine may hold (max_cpu_loras)"
            raise RequestError(text, param="lora_name")
        adapter = Adapter(source.name, found, source.path)
        try:
            await self._load(adapter)
        except ValueError as error:
            raise RequestError(f"The adapter cannot be loaded: {error}", param="lora_path") from error
        self._owners[adapter.id] = adapter.name
        self._by_id[adapter.id] = self._by_name[adapter.name] = adapter
        log.info("loaded the LoRA adapter '%s' with the id %d from %s", adapter.name, adapter.id, adapter.path)

    def _remove(self, adapter: Adapter) -> None:
        del self._by_name[adapter.name]
        self._leave(adapter)

    def _leave(self, adapter: Adapter) -> None:
        """Take an adapter that nobody can choose any more out of the engine, unless a request uses it."""
        if self._uses[adapter.id] > 0 or self._by_id.get(adapter.id) is not adapter:
            return
        del self._by_id[adapter.id], self._uses[adapter.id]
        task = asyncio.get_running_loop().create_task(self._unload(adapter))
        self._leaving.add(task)
        task.add_done_callback(self._left)
        log.info("unloaded the LoRA adapter '%s' with the id %d", adapter.name, adapter.id)

    def _left(self, task: "asyncio.Task[None]") -> None:
        self._leaving.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a LoRA adapter could not be taken out of the engine", exc_info=error)

    def _named(self, name: Any) -> Adapter:
        adapter = self._by_name.get(str(name))
        if adapter is None:
            raise RequestError(f"There is no adapter '{name}'", kind="not_found", param="lora_name")
        return adapter

    def _allowed(self, path: Any) -> Path:
        """The folder of an adapter; raises RequestError if it is not below an allowed one, whether it exists or not."""
        if not isinstance(path, str) or not path or "\0" in path:
            raise RequestError("lora_path must be the path of a folder", param="lora_path")
        try:
            found = Path(path).resolve()
        except (OSError, RuntimeError):  # A loop of links, for one.
            raise RequestError("lora_path must be the path of a folder", param="lora_path") from None
        if not any(found.is_relative_to(folder) for folder in self._options.allowed):
            raise RequestError("lora_path is not inside a folder that allowed_lora_path names", param="lora_path")
        return found
