# SPDX-License-Identifier: Apache-2.0
"""API keys from the settings and from a file, quotas, TLS, and the warnings of an open server."""

import asyncio
import hashlib
import logging
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.datastructures import Headers

from frontend.auth import authenticator
from frontend.auth.authenticator import Authenticator
from frontend.auth.keys import main as make_key
from frontend.auth.keys import parse_key, read_keys
from frontend.auth.quotas import Limits, Quota
from frontend.errors import ApiError
from frontend.settings import Settings, SettingsError
from tests.fakes.certificate import write_certificate
from tests.fakes.fake_triton import Call, finish
from tests.fakes.frontend_server import CHAT, HELLO, WAIT, Serving, serving

CERTIFICATE: dict[str, Any] = {"tls_certificate": "c.pem", "tls_key": "k.pem"}


def entry(name: str, key: str, limits: str = "") -> str:
    return f"{name} {hashlib.sha256(key.encode()).hexdigest()} {limits}\n"


def bearer(key: str) -> Headers:
    return Headers({"authorization": f"Bearer {key}"})


def caller(gate: Authenticator, key: str) -> str | None:
    """Return the name of a key, None if it is refused."""
    try:
        known = gate.authenticate(bearer(key))
    except ApiError as error:
        assert error.shape.status == 401
        return None
    return known and known.name


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("frontend.auth.authenticator.RELOAD_PERIOD", 0)
    path = tmp_path / "keys"
    path.write_text(entry("alice", "key-a") + "# a comment\n\n" + entry("bob", "key-b", "rate=60 concurrent=1"))
    return path


def gate_of(path: Path, **settings: Any) -> Authenticator:
    return Authenticator(Settings(api_keys_file=str(path), **settings))


class TestFile:
    def test_keys_by_name(self, file: Path) -> None:
        gate = gate_of(file, api_key=("fixed",))
        assert [caller(gate, key) for key in ("key-a", "key-b", "fixed")] == ["alice", "bob", "setting:1"]
        stored = hashlib.sha256(b"key-a").hexdigest()
        assert [caller(gate, key) for key in ("", "key-c", "key-a ", stored)] == [None, None, "alice", None]

    def test_a_scheme_other_than_bearer(self, file: Path) -> None:
        for value in ("key-a", "Basic key-a", "Bearer", "Bearer\u00e9"):
            with pytest.raises(ApiError, match="valid API key"):
                gate_of(file).authenticate(Headers({"authorization": value}))

    def test_a_change_of_the_file_needs_no_restart(self, file: Path) -> None:
        gate = gate_of(file)
        assert caller(gate, "key-a") == "alice"
        file.write_text(entry("carol", "key-c"))
        assert [caller(gate, key) for key in ("key-a", "key-c")] == [None, "carol"]

    @pytest.mark.parametrize("broken", ["", "carol\n", entry("carol", "c")[:-9], entry("carol", "c") * 2, "\x00", None])
    def test_a_broken_file_leaves_the_keys_as_they_were(
        self, file: Path, caplog: pytest.LogCaptureFixture, broken: str | None
    ) -> None:
        gate = gate_of(file)
        assert caller(gate, "key-a") == "alice"
        file.unlink() if broken is None else file.write_text(broken)
        assert [caller(gate, key) for key in ("key-a", "key-b", "c")] == ["alice", "bob", None]
        errors = [record for record in caplog.records if record.levelno == logging.ERROR]
        assert len(errors) == 1, "logged once, not with each request"
        assert hashlib.sha256(b"c").hexdigest()[:20] not in caplog.text
        file.write_text(entry("carol", "key-c"))
        assert caller(gate, "key-c") == "carol"

    def test_quotas_outlive_a_change_of_the_file(self, file: Path) -> None:
        file.write_text(entry("alice", "key-a", "concurrent=1"))
        gate = gate_of(file)
        alice = gate.authenticate(bearer("key-a"))
        assert alice is not None
        with alice.quota.use():
            file.write_text(entry("dave", "key-d") + entry("alice", "key-new", "concurrent=1"))
            changed = gate.authenticate(bearer("key-new"))
            assert changed is not None
            with pytest.raises(ApiError, match="1 requests at once"), changed.quota.use():
                pass

    @pytest.mark.parametrize("line", ["alice", "alice short", "al/ice " + "0" * 64, "alice " + "0" * 64 + " rate=0", "alice " + "0" * 64 + " speed=1", "alice " + "0" * 64 + " rate=1 rate=2", "alice " + "0" * 64 + " models=", "alice " + "0" * 64 + " models=a models=b"])  # fmt: skip
    def test_a_start_with_a_broken_file_is_refused(self, tmp_path: Path, line: str) -> None:
        path = tmp_path / "keys"
        path.write_text(line)
        with pytest.raises(SettingsError, match=r"--api-keys-file=.*line 1"):
            Authenticator(Settings.load(["--api-keys-file", str(path)], {}))
        with pytest.raises(SettingsError, match="No such file"):
            Authenticator(Settings.load(["--api-keys-file", str(tmp_path / "none")], {}))
        command = [sys.executable, "-m", "frontend", "--port", "0", "--api-keys-file", str(path)]
        failed = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert (failed.returncode, failed.stdout) == (2, "")
        assert failed.stderr.startswith(f"error: --api-keys-file='{path}': expected a file of API keys: line 1: ")

    def test_the_command_makes_an_entry_of_a_random_key(self, tmp_path: Path) -> None:
        command = [sys.executable, "-m", "scripts.cli", "keys", "alice", "rate=60", "concurrent=4", "models=b,a"]
        made = [subprocess.run(command, capture_output=True, text=True, timeout=60, check=True) for _ in range(2)]
        key, other = [one.stderr.split()[-1] for one in made]
        assert key.startswith("sk-") and len(key) > 40 and key != other
        path = tmp_path / "keys"
        path.write_text(made[0].stdout)
        (made_key,) = read_keys(path)
        assert (made_key.limits, made_key.models) == (Limits(rate=60, concurrent=4), {"a", "b"})
        assert key not in made[0].stdout
        assert caller(gate_of(path), key) == "alice"

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            ([], "the following arguments are required: NAME."),
            (["a b"], "a name has 1 to 64 letters, digits and . _ @ -."),
            (["alice", "rat=60"], "as rate=60; did you mean rate?"),
            (["alice", "60"], "a limit is one of rate, burst, concurrent, models, as rate=60."),
            (["alice", "rate=0"], "rate must be a whole number from 1 to 999999999, as rate=60."),
            (["alice", "concurrent"], "concurrent must be a whole number from 1 to 999999999, as concurrent=60."),
            (["alice", "rate=1", "rate=2"], "rate is given twice."),
            (["alice", "models="], "expected one list of models without gaps, as models=qwen3,gemma3."),
        ],
    )
    def test_the_command_refuses_a_wrong_line(
        self, capsys: pytest.CaptureFixture[str], words: list[str], said: str
    ) -> None:
        with pytest.raises(SystemExit) as ended:
            make_key(words)
        printed = capsys.readouterr()
        assert (ended.value.code, printed.out) == (2, "")
        assert printed.err.startswith("error: ") and said in printed.err and printed.err.count("\n") == 1

    def test_a_word_that_may_be_a_key_is_not_repeated(self) -> None:
        with pytest.raises(ValueError, match="a limit is one of") as refused:
            parse_key(["alice", "ab" * 32, "sk-secret"])
        assert "secret" not in str(refused.value)

    def test_a_line_is_written_as_it_is_read(self) -> None:
        words = ["alice", "ab" * 32, "rate=60", "burst=2", "concurrent=4", "models=gemma3,qwen3"]
        assert parse_key(words).line().split() == words


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def use(quota: Quota) -> int | None:
    """Make a request; return None, or the Retry-After seconds of its refusal."""
    try:
        with quota.use():
            return None
    except ApiError as error:
        assert error.shape.status == 429
        return int(error.shape.headers["Retry-After"])


class TestQuota:
    def test_no_limits(self) -> None:
        quota = Quota(Limits())
        assert [use(quota) for _ in range(1000)] == [None] * 1000

    def test_a_burst_then_the_rate(self) -> None:
        clock = Clock()
        quota = Quota(Limits(rate=30, burst=3), clock)
        assert [use(quota) for _ in range(5)] == [None, None, None, 2, 2]
        clock.now += 1.5
        assert use(quota) == 1
        clock.now += 0.5
        assert [use(quota), use(quota)] == [None, 2]
        clock.now += 1000
        assert [use(quota) for _ in range(4)] == [None, None, None, 2], "a pause gives no more than a burst"

    def test_a_rate_below_one_in_ten_seconds_allows_one_request(self) -> None:
        quota = Quota(Limits(rate=1), Clock())
        assert [use(quota), use(quota)] == [None, 60]

    def test_concurrent_requests(self) -> None:
        quota = Quota(Limits(concurrent=2))
        with quota.use(), quota.use():
            assert use(quota) == 1
        assert use(quota) is None

    def test_a_request_refused_for_concurrency_keeps_its_token(self) -> None:
        clock = Clock()
        quota = Quota(Limits(rate=60, burst=2, concurrent=1), clock)
        with quota.use():
            assert [use(quota) for _ in range(5)] == [1] * 5
        assert [use(quota), use(quota)] == [None, 1]

    def test_new_limits_do_not_fill_the_bucket(self) -> None:
        clock = Clock()
        quota = Quota(Limits(rate=60, burst=2), clock)
        assert [use(quota), use(quota)] == [None, None]
        quota.change(Limits(rate=120, burst=4))
        assert use(quota) == 1
        clock.now += 0.5
        assert use(quota) is None

    def test_a_first_rate_starts_with_its_burst(self) -> None:
        quota = Quota(Limits(), Clock())
        quota.change(Limits(rate=60, burst=2))
        assert [use(quota), use(quota), use(quota)] == [None, None, 1]


class TestServer:
    async def ask(self, served: Serving, key: str, **fields: Any) -> httpx.Response:
        return await served.http.post(CHAT, json=HELLO | fields, headers={"Authorization": f"Bearer {key}"})

    async def test_each_key_has_its_own_limits(self, file: Path) -> None:
        go_on = asyncio.Event()

        async def script(call: Call) -> AsyncIterator[Any]:
            await go_on.wait()
            yield finish(text="done")

        async with serving(api_keys_file=str(file), api_key_concurrent=2) as served:
            served.triton.script = script
            tasks = [asyncio.create_task(self.ask(served, key)) for key in ("key-a", "key-a", "key-b")]
            async with asyncio.timeout(WAIT):
                while len(served.triton.calls) < 3:
                    await asyncio.sleep(0.01)
            for key in ("key-a", "key-b"):
                refused = await self.ask(served, key)
                error = refused.json()["error"]
                assert (refused.status_code, error["code"]) == (429, "rate_limit_exceeded")
                assert refused.headers["retry-after"] == "1"
            models = await served.http.get("/v1/models", headers={"Authorization": "Bearer key-b"})
            assert models.status_code == 200, "what costs nothing is not counted"
            go_on.set()
            assert [(await one).status_code for one in tasks] == [200] * 3
            assert (await self.ask(served, "key-a", stream=True)).status_code == 200
            assert (await self.ask(served, "key-a")).status_code == 200

    async def test_a_rate(self, tmp_path: Path) -> None:
        path = tmp_path / "keys"
        path.write_text(entry("alice", "key-a", "rate=1 burst=2"))
        async with serving(api_keys_file=str(path)) as served:
            answers = [await self.ask(served, "key-a") for _ in range(3)]
            assert [one.status_code for one in answers] == [200, 200, 429]
            assert 50 < int(answers[2].headers["retry-after"]) <= 60

    async def test_the_answer_to_a_wrong_key(self, file: Path) -> None:
        async with serving(api_keys_file=str(file)) as served:
            refused = await self.ask(served, "wrong")
            assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
            assert (await served.http.post(f"{served.url}//tokenize", json={"prompt": "a"})).status_code == 401
            assert (await served.http.get("/health/live")).status_code == 200
            assert not served.triton.calls

    async def test_pages_of_other_origins_may_not_call(self) -> None:
        """A browser sends such a POST without a preflight, so the engine would do the work."""
        headers = {"Origin": "https://evil.example", "Content-Type": "text/plain"}
        async with serving() as served:
            refused = await served.http.post(CHAT, json=HELLO, headers=headers)
            assert (refused.status_code, refused.json()["error"]["code"]) == (403, "origin_not_allowed")
            assert not served.triton.calls
        async with serving(cors_allow_origins=("https://app.example",)) as served:
            assert (await served.http.post(CHAT, json=HELLO, headers=headers)).status_code == 403
            allowed = await served.http.post(CHAT, json=HELLO, headers={"Origin": "https://app.example"})
            assert allowed.headers["access-control-allow-origin"] == "https://app.example"
        async with serving(cors_allow_origins=("*",)) as served:
            assert (await served.http.post(CHAT, json=HELLO, headers=headers)).status_code == 200


class TestTls:
    @pytest.fixture
    def pem(self, tmp_path: Path) -> Path:
        """Make a self-signed certificate for 127.0.0.1 with its key."""
        path = tmp_path / "certificate.pem"
        write_certificate(path)
        return path

    async def test_only_tls_is_served(self, pem: Path) -> None:
        async with serving(tls_certificate=str(pem), tls_key=str(pem)) as served:
            url = served.url.replace("http://", "https://")
            async with httpx.AsyncClient(verify=ssl.create_default_context(cafile=pem), timeout=WAIT) as http:
                answer = await http.post(f"{url}{CHAT}", json=HELLO)
                assert answer.json()["choices"][0]["message"]["content"] == "Hello world"
            with pytest.raises(httpx.TransportError):
                await served.chat()
            assert len(served.triton.calls) == 1

    async def test_a_renewed_certificate_needs_no_restart(self, pem: Path, caplog: pytest.LogCaptureFixture) -> None:
        async with serving(tls_certificate=str(pem), tls_key=str(pem)) as served:
            address = (served.url.removeprefix("http://").partition(":")[0], int(served.url.rpartition(":")[2]))

            async def shown() -> str:
                return await asyncio.to_thread(ssl.get_server_certificate, address)

            old = pem.read_text()
            async with httpx.AsyncClient(verify=ssl.create_default_context(cafile=pem), timeout=WAIT) as http:
                url = served.url.replace("http://", "https://")
                assert (await http.post(f"{url}{CHAT}", json=HELLO)).status_code == 200
                # Of a damaged one there is a line in the log.
                pem.write_text("damaged")
                async with asyncio.timeout(WAIT):
                    while "stays as it was" not in caplog.text:
                        await asyncio.sleep(0.05)
                assert (await shown()).strip() in old
                write_certificate(pem)
                async with asyncio.timeout(WAIT):
                    while (await shown()).strip() not in pem.read_text():
                        await asyncio.sleep(0.05)
                # The connection that was open still serves.
                assert (await http.post(f"{url}{CHAT}", json=HELLO)).status_code == 200


class TestWarnings:
    @pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "::1", "[::1]", "localhost"])
    def test_no_warnings_on_loopback(self, host: str) -> None:
        assert authenticator.warnings(Settings(host=host)) == []

    @pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "host.example"])
    def test_an_open_server_is_warned_about(self, host: str) -> None:
        both = authenticator.warnings(Settings(host=host))
        assert len(both) == 2 and "no API keys" in both[0] and "no TLS" in both[1]
        assert [
            text for text in authenticator.warnings(Settings(host=host, api_key=("k",))) if "keys are" in text
        ] == []
        assert authenticator.warnings(Settings(host=host, api_keys_file="f", **CERTIFICATE)) == []

    async def test_the_server_logs_the_warnings(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr("frontend.auth.authenticator.warnings", lambda settings: [f"OPEN {settings.port}"])
        with caplog.at_level(logging.WARNING):
            async with serving(log_level="warning"):
                assert "OPEN 9997" in caplog.text
