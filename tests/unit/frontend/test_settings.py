# SPDX-License-Identifier: Apache-2.0
"""Settings from flags and the environment."""

import pytest

from frontend.settings import Settings, SettingsError


def test_flag_over_environment_over_default() -> None:
    environment = {"TRITON_CHAT_PORT": "1", "TRITON_CHAT_HOST": "0.0.0.0", "TRITON_CHAT_SERVED_MODEL_NAME": "a, b"}
    settings = Settings.load(["--port", "2", "--inline-reasoning"], environment)
    assert (settings.port, settings.host, settings.request_timeout) == (2, "0.0.0.0", 600.0)
    assert (settings.served_model_name, settings.inline_reasoning) == (("a", "b"), True)
    repeated = Settings.load(["--served-model-name", "x", "--served-model-name", "y,z"], environment)
    assert repeated.served_model_name == ("x", "y", "z")
    assert Settings.load(["--modalities", "text,Image"], {}).modalities == ("text", "image")


@pytest.mark.parametrize(
    ("flags", "environment", "key", "value"),
    [
        (["--port", "99999"], {}, "--port", "99999"),
        (["--port", "1", "--port", "2"], {}, "--port", "1,2"),
        ([], {"TRITON_CHAT_REQUEST_TIMEOUT": "soon"}, "TRITON_CHAT_REQUEST_TIMEOUT", "soon"),
        ([], {"TRITON_CHAT_ENABLE_THINKING": "maybe"}, "TRITON_CHAT_ENABLE_THINKING", "maybe"),
        ([], {"TRITON_CHAT_SERVED_MODEL_NAME": ","}, "--served-model-name", ""),
        (["--tls-key", "key.pem"], {}, "--tls-certificate", "key.pem"),
        (["--metrics-port", "9997"], {}, "--metrics-port", "9997"),
        (["--metrics-port", "0"], {}, "--metrics-port", "0"),
        (["--modalities", "text,audio"], {}, "--modalities", "audio"),
        (["--triton-url", "nowhere"], {}, "--triton-url", "host:port"),
        (["--response-store", "x", "--response-store-bytes", "200000000"], {}, "--response-store-bytes", "200000000"),
    ],
)
def test_an_error_names_key_and_value(flags: list, environment: dict, key: str, value: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.load(flags, environment)
    assert key in str(caught.value)
    assert value in str(caught.value)


def test_the_log_format_is_checked() -> None:
    assert Settings.load(["--log-format", "JSON"], {}).log_format == "json"
    with pytest.raises(SettingsError, match="--log-format='xml': expected one of text, json"):
        Settings.load(["--log-format", "xml"], {})
