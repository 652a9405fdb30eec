# SPDX-License-Identifier: Apache-2.0
"""The table of an engine's adapters, over an engine that only notes what is loaded."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from common.adapters import Adapter
from common.errors import RequestError
from engines.adapters import AdapterOptions, AdapterTable
from tests.support.plain_adapter import write_adapter, write_base


class Loaded:
    """The adapters inside an engine, which refuses those whose name begins with "bad"."""

    def __init__(self) -> None:
        self.names: list[str] = []

    async def load(self, adapter: Adapter) -> None:
        if adapter.name.startswith("bad"):
            raise ValueError("no such modules")
        self.names.append(adapter.name)

    async def unload(self, adapter: Adapter) -> None:
        self.names.remove(adapter.name)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a base, and with the adapters a and b inside the allowed folder."""
    write_base(tmp_path / "base")
    (tmp_path / "allowed").mkdir()
    for fill, name in enumerate(("a", "b"), 1):
        write_adapter(tmp_path / "allowed" / name, fill=float(fill))
    return tmp_path


def table(folder: Path, inside: Loaded, room: int | None = None, **passed: Any) -> AdapterTable:
    given = {"enable_lora": True, "allowed_lora_path": str(folder / "allowed")} | passed
    options = AdapterOptions.take(given)
    assert given == {"enable_lora": True}
    return AdapterTable(options, folder / "base", inside.load, inside.unload, max_rank=8, room=room)


def load(folder: Path, name: str, **more: Any) -> dict[str, Any]:
    return {"load_adapter": name, "adapter_path": str(folder / "allowed" / name)} | more


async def refused(change: Any) -> RequestError:
    with pytest.raises(RequestError) as error:
        await change
    return error.value


async def test_an_adapter_is_loaded_chosen_by_its_id_and_unloaded(folder: Path) -> None:
    inside = Loaded()
    adapters = table(folder, inside, lora_modules=[f"a={folder}/allowed/a"])
    await adapters.load_first()
    await adapters.change({})
    await adapters.change(load(folder, "b"))
    assert [one.name for one in adapters.all()] == inside.names == ["a", "b"]
    (a, b) = adapters.all()
    with adapters.use(a.id) as first, adapters.use(b.id) as second:
        assert (first, second) == (a, b)
    await adapters.change({"unload_adapter": "a"})
    await asyncio.sleep(0)
    assert inside.names == ["b"]
    with pytest.raises(RequestError, match="no adapter with the id") as error, adapters.use(a.id):
        pass
    assert error.value.kind == "not_found"


async def test_an_unloaded_adapter_stays_for_the_requests_that_use_it(folder: Path) -> None:
    inside = Loaded()
    adapters = table(folder, inside)
    await adapters.change(load(folder, "a"))
    (a,) = adapters.all()
    with adapters.use(a.id):
        with adapters.use(a.id):
            await adapters.change({"unload_adapter": "a"})
            await asyncio.sleep(0)
            assert adapters.all() == [] and inside.names == ["a"]
            assert (await refused(_use(adapters, a.id))).kind == "not_found"
        await asyncio.sleep(0)
        assert inside.names == ["a"]
        # The same files once more: it is the same adapter, and it never left.
        await adapters.change(load(folder, "a"))
        assert adapters.all() == [a] and inside.names == ["a"]
        await adapters.change({"unload_adapter": "a"})
    await asyncio.sleep(0)
    assert inside.names == []


async def _use(adapters: AdapterTable, identifier: int) -> None:
    with adapters.use(identifier):
        pass


async def test_another_content_under_the_same_name_has_another_id(folder: Path) -> None:
    inside = Loaded()
    adapters = table(folder, inside)
    await adapters.change(load(folder, "a"))
    (old,) = adapters.all()
    assert "loaded already" in str(await refused(adapters.change(load(folder, "a"))))
    other = {"adapter_path": str(folder / "allowed" / "b")}
    with adapters.use(old.id):
        await adapters.change(load(folder, "a", replace_adapter=True) | other)
        (new,) = adapters.all()
        assert new.id != old.id and inside.names == ["a", "a"]
    await asyncio.sleep(0)
    assert adapters.all() == [new] and inside.names == ["a"]


async def test_an_id_is_never_used_for_another_adapter(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engines.adapters.adapter_id", lambda source: 2**31 - 1)
    adapters = table(folder, Loaded())
    await adapters.change(load(folder, "a"))
    await adapters.change({"unload_adapter": "a"})
    await adapters.change(load(folder, "b"))
    assert [one.id for one in adapters.all()] == [1]


@pytest.mark.parametrize(
    ("change", "kind", "param"),
    [
        ({"load_adapter": "c", "adapter_path": "{}/allowed/c"}, "not_found", "lora_path"),
        ({"load_adapter": "c", "adapter_path": "{}/allowed/" + "x" * 300}, "not_found", "lora_path"),
        ({"load_adapter": "c", "adapter_path": "{}/base"}, "invalid_request", "lora_path"),
        ({"load_adapter": "c", "adapter_path": "{}/allowed/../base"}, "invalid_request", "lora_path"),
        ({"load_adapter": "c", "adapter_path": "{}/allowed/link"}, "invalid_request", "lora_path"),
        ({"load_adapter": "c"}, "invalid_request", "lora_path"),
        ({"load_adapter": "c", "adapter_path": "\0"}, "invalid_request", "lora_path"),
        ({"load_adapter": 3, "adapter_path": "{}/allowed/a"}, "invalid_request", "lora_name"),
        ({"load_adapter": "bad", "adapter_path": "{}/allowed/a"}, "invalid_request", "lora_path"),
        ({"unload_adapter": "c"}, "not_found", "lora_name"),
        ({"unload_adapter": ["c"]}, "not_found", "lora_name"),
    ],
    ids=str,
)
async def test_what_cannot_be_done_is_refused(folder: Path, change: dict[str, Any], kind: str, param: str) -> None:
    (folder / "allowed" / "link").symlink_to(folder / "base")
    inside = Loaded()
    adapters = table(folder, inside)
    wanted = {name: value.format(folder) if isinstance(value, str) else value for name, value in change.items()}
    error = await refused(adapters.change(wanted))
    assert (error.kind, error.param) == (kind, param)
    assert inside.names == [] and adapters.all() == []


async def test_without_an_allowed_folder_nothing_changes(folder: Path) -> None:
    adapters = table(folder, Loaded(), allowed_lora_path=None, lora_modules={"a": str(folder / "allowed" / "a")})
    await adapters.load_first()
    for change in (load(folder, "b"), {"unload_adapter": "a"}):
        assert "allowed_lora_path" in str(await refused(adapters.change(change)))
    assert len(adapters.all()) == 1


async def test_no_more_adapters_than_the_engine_can_hold(folder: Path) -> None:
    adapters = table(folder, Loaded(), room=1)
    await adapters.change(load(folder, "a"))
    assert "max_cpu_loras" in str(await refused(adapters.change(load(folder, "b"))))
    await adapters.change({"unload_adapter": "a"})
    await adapters.change(load(folder, "b"))


async def test_an_unfit_adapter_of_the_command_line_ends_the_start(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"LoRA adapter 'bad': .*no such modules"):
        await table(folder, Loaded(), lora_modules=[f"bad={folder}/allowed/a"]).load_first()


@pytest.mark.parametrize("passed", [{"lora_modules": ["a=/a"]}, {"allowed_lora_path": "/a"}])
def test_the_options_need_enable_lora(passed: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="enable_lora"):
        AdapterOptions.take(passed)
