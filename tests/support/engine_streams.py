# SPDX-License-Identifier: Apache-2.0
"""What an engine generates, as an iterator."""

import asyncio
from collections.abc import AsyncGenerator

from engines.engine import Engine, Generation, Tokens


async def stream_of(engine: Engine, generation: Generation) -> AsyncGenerator[Tokens, None]:
    """The tokens of one generation as they come. Closing the iterator cancels it; raises what the engine raises."""
    made: asyncio.Queue[Tokens | None] = asyncio.Queue()
    task = asyncio.create_task(engine.generate(generation, made.put_nowait))
    task.add_done_callback(lambda _: made.put_nowait(None))
    try:
        while (tokens := await made.get()) is not None:
            yield tokens
        await task
    finally:
        task.cancel()
        await asyncio.wait({task})
