# SPDX-License-Identifier: Apache-2.0
"""What /v1/models says of a model that is served alone."""

import pytest

from tests.fakes.frontend_server import serving


@pytest.mark.parametrize(
    ("modalities", "told"), [((), None), (("text",), ["text"]), (("text", "image"), ["text", "image"])]
)
async def test_what_its_prompts_may_hold(modalities: tuple[str, ...], told: list[str] | None) -> None:
    async with serving(modalities=modalities) as served:
        model, _ = (await served.http.get("/v1/models")).json()["data"]
        assert model["modalities"] == told
