# SPDX-License-Identifier: Apache-2.0
"""API keys, and the file that holds their hashes, one key per line.

    # name, SHA-256 of the key, then limits if there are any, and the models that it may use if not all
    alice 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08 rate=60 burst=10 concurrent=4 models=qwen3

`triton-chat keys alice rate=60 concurrent=4 >> keys` makes a key, prints it on the terminal and writes its line; in a
container with only the frontend it is `python -m frontend.auth.keys`.
The keys are random, 256 bits each, so that a plain hash is enough.
"""

import hashlib
import hmac
import re
import secrets
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from common.command_line import Parser, did_you_mean
from frontend.auth.quotas import Limits

_NAME = re.compile(r"[A-Za-z0-9._@-]{1,64}")
_HASH = re.compile(r"[0-9a-fA-F]{64}")
_MODELS = "models="
_LIMITS = tuple(field.name for field in fields(Limits))
_ABOUT_LIMITS = f"""rate=N: requests per minute; burst=N: requests that may start at once after a pause (default: those
of ten seconds); concurrent=N: requests in progress; {_MODELS}NAME,NAME: the only models that it may use. Default: no
limit, and all models"""
PREFIX = "sk-"  # of the keys that are made here; some clients check for it


@dataclass(frozen=True, slots=True)
class ApiKey:
    """The hash and the limits of one API key.

    name: for logs; the limits are counted by it. digest: SHA-256 of the key. models: names of the models that it may
    use; None for all.
    """

    name: str
    digest: bytes
    limits: Limits
    models: frozenset[str] | None = None

    def line(self) -> str:
        """Return the key's line of the file."""
        limits = [f"{name}={value}" for name in _LIMITS if (value := getattr(self.limits, name)) is not None]
        models = [] if self.models is None else [_MODELS + ",".join(sorted(self.models))]
        return " ".join([self.name, self.digest.hex(), *limits, *models])


def digest(key: str) -> bytes:
    """Return the SHA-256 of a key."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def read_keys(path: Path) -> tuple[ApiKey, ...]:
    """Read a file of keys. Raises ValueError naming the line at fault, OSError if the file cannot be read."""
    keys: dict[str, ApiKey] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        try:
            key = parse_key(words)
            if key.name in keys:
                raise ValueError(f"the name {key.name} was used before")
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from None
        keys[key.name] = key
    if not keys:
        # The file is just being written, or was emptied by mistake.
        raise ValueError("it holds no key")
    return tuple(keys.values())


def parse_key(words: Sequence[str]) -> ApiKey:
    """Read the words of one line. Raises ValueError, whose text never contains a hash or what may be a key."""
    name, *rest = words
    if not _NAME.fullmatch(name):
        raise ValueError("a name has 1 to 64 letters, digits and . _ @ -")
    if not rest or not _HASH.fullmatch(rest[0]):
        raise ValueError(f"{name} needs the SHA-256 of its key, 64 hexadecimal digits")
    models = [word for word in rest[1:] if word.startswith(_MODELS)]
    limits = parse_limits(word for word in rest[1:] if word not in models)
    return ApiKey(name, bytes.fromhex(rest[0]), limits, _parse_models(models))


def _parse_models(words: Sequence[str]) -> frozenset[str] | None:
    """Read the words `models=a,b`, of which there is at most one."""
    if not words:
        return None
    names = words[0].removeprefix(_MODELS).split(",")
    if len(words) > 1 or not all(names):
        raise ValueError("expected one list of models without gaps, as models=qwen3,gemma3")
    return frozenset(names)


def parse_limits(words: Iterable[str]) -> Limits:
    """Read limits in the form `name=number`. Raises ValueError for anything else."""
    limits: dict[str, int] = {}
    for word in words:
        name, _, value = word.partition("=")
        if name not in _LIMITS:
            # The word may be a key, so it is not repeated.
            known = (*_LIMITS, _MODELS.rstrip("="))
            raise ValueError(f"a limit is one of {', '.join(known)}, as rate=60{did_you_mean(name, known)}")
        if name in limits:
            raise ValueError(f"{name} is given twice")
        if not re.fullmatch(r"[1-9][0-9]{0,8}", value):
            raise ValueError(f"{name} must be a whole number from 1 to 999999999, as {name}=60")
        limits[name] = int(value)
    return Limits(**limits)


class KeyIndex:
    """Finds a key in a time that reveals nothing about the stored keys.

    Look-ups and comparisons use a keyed hash; its secret is random and never leaves the process.
    """

    def __init__(self, keys: Iterable[ApiKey]) -> None:
        self._secret = secrets.token_bytes(32)
        self._keys = {self._hide(key.digest): key for key in keys}

    def find(self, given: str) -> ApiKey | None:
        """Return the key that a client sent, None if it is unknown."""
        hidden = self._hide(digest(given))
        found = self._keys.get(hidden)
        return found if found is not None and hmac.compare_digest(self._hide(found.digest), hidden) else None

    def _hide(self, plain: bytes) -> bytes:
        return hmac.digest(self._secret, plain, "sha256")


def main(arguments: Sequence[str] | None = None) -> int:
    """Make a key: its line for the file goes to standard output, the key itself to standard error.

    Returns the exit status, 0; a name or limits that the file cannot have end it with 2.
    """
    parser = Parser(
        prog="triton-chat keys",
        description="Make an API key: print it, once, on the terminal, and its line for --api-keys-file.",
        epilog="example: triton-chat keys alice rate=60 concurrent=4 >> keys.txt",
    )
    parser.add_argument("name", metavar="NAME", help="name of the key, for logs; the limits are counted by it")
    # Without the default, argparse's message of a missing name would require limits as well.
    parser.add_argument("limits", nargs="*", metavar="LIMIT", default=[], help=_ABOUT_LIMITS)
    options = parser.parse_args(arguments)
    key = PREFIX + secrets.token_urlsafe(32)
    try:
        line = parse_key([options.name, digest(key).hex(), *options.limits]).line()
    except ValueError as error:
        parser.error(str(error))
    sys.stderr.write(f"The key of {options.name}, shown only now: {key}\n")
    sys.stdout.write(f"{line}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
