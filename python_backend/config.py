# SPDX-License-Identifier: Apache-2.0
"""Read the `parameters` of a Triton model's config, with environment variables expanded.

So one committed repository serves any checkpoint: a config has `string_value: "${TRITON_CHAT_MODEL}"`, and the
environment of tritonserver names the checkpoint.
"""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

# The parameter with variables that a model's process sets before it imports anything: a JSON object of texts.
ENVIRONMENT = "environment"
# The variable with the name of the Triton model whose process this is, for its log lines.
TRITON_MODEL = "TRITON_CHAT_TRITON_MODEL"
_VARIABLE = re.compile(r"\$(?P<escaped>\$\{)|\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^}]*))?\}")
_TRUE, _FALSE = ("1", "true", "yes", "on"), ("0", "false", "no", "off")


def expand(text: str, environment: Mapping[str, str] = os.environ) -> str:
    """Replace `${NAME}` and `${NAME:-default}`; an unset or empty NAME without a default becomes "", and `$${` `${`."""
    return _VARIABLE.sub(
        lambda found: found["escaped"] or environment.get(found["name"]) or found["default"] or "", text
    )


def escape(text: str) -> str:
    """Write a text such that `expand` returns it unchanged."""
    return text.replace("${", "$${")


def apply_environment(model_config: str) -> None:
    """Set the variables of the config's parameter `environment`, before anything that reads them is imported.

    So each of several models has its own GPUs and cores, and its name in its log lines.
    model_config: `args["model_config"]`.
    """
    config = json.loads(model_config)
    parameter = config.get("parameters", {}).get(ENVIRONMENT)
    if parameter is not None:
        os.environ.update(json.loads(expand(parameter["string_value"])))
    os.environ[TRITON_MODEL] = config["name"]


@dataclass(frozen=True, slots=True)
class ModelParameters:
    """The expanded config parameters of one Triton model. Every error names the key and its value.

    instances: the number of its processes. instance: which of them this is, counted from 0.
    """

    model: str
    values: Mapping[str, str]
    instances: int = 1
    instance: int = 0

    @classmethod
    def from_args(cls, args: Mapping[str, str]) -> "ModelParameters":
        """Read them from what Triton passes to `initialize`; raises ValueError for several instance groups."""
        found = cls.from_config(args["model_config"])
        if len(json.loads(args["model_config"]).get("instance_group", ())) > 1:
            raise ValueError(f"model '{found.model}': it must have one instance_group")
        # The name is MODEL_GROUP_NUMBER, or the group's own: then a number in it is none of a process.
        number = args["model_instance_name"].rpartition("_")[2]
        return replace(found, instance=int(number) if found.instances > 1 and number.isdecimal() else 0)

    @classmethod
    def from_config(cls, model_config: str, environment: Mapping[str, str] = os.environ) -> "ModelParameters":
        """Read them from `args["model_config"]`, the JSON that Triton passes to `initialize`."""
        config = json.loads(model_config)
        parameters = config.get("parameters", {})
        values = {key: expand(value["string_value"], environment) for key, value in parameters.items()}
        instances = sum(group.get("count", 1) for group in config.get("instance_group", ()))
        return cls(config["name"], values, max(1, instances))

    def text(self, key: str) -> str | None:
        """The value, or None if it is absent or empty."""
        return self.values.get(key) or None

    def required(self, key: str) -> str:
        """The value; raises ValueError if it is absent or empty."""
        value = self.text(key)
        if value is None:
            raise ValueError(f"model '{self.model}': config parameter '{key}' is empty; is its variable set?")
        return value

    def integer(self, key: str) -> int | None:
        """The value as an int, or None if it is absent; raises ValueError if it is no integer."""
        value = self.text(key)
        if value is None:
            return None
        try:
            return int(value)
        except ValueError:
            raise ValueError(f"model '{self.model}': parameter '{key}' must be an integer, not '{value}'") from None

    def given(self, *keys: str) -> dict[str, bool]:
        """The values of those boolean keys that are set; raises ValueError as `boolean` does."""
        values = {key: self.boolean(key) for key in keys}
        return {key: value for key, value in values.items() if value is not None}

    def boolean(self, key: str) -> bool | None:
        """The value as a bool, or None if it is absent; raises ValueError if it is neither true nor false."""
        value = (self.text(key) or "").lower()
        if value in ("", *_TRUE, *_FALSE):
            return None if not value else value in _TRUE
        raise ValueError(f"model '{self.model}': parameter '{key}' must be true or false, not '{value}'")
