# SPDX-License-Identifier: Apache-2.0
from postprocessing.streams import IDLE_LIMIT_S, Streams


def test_streams_that_died_are_evicted() -> None:
    now = 0.0
    streams: Streams[object] = Streams(lambda: now)
    dead = streams.get(("dead", 1), object)
    assert streams.get(("dead", 1), object) is dead
    now = IDLE_LIMIT_S / 2
    live = streams.get(("live", 1), object)
    now = IDLE_LIMIT_S + 1
    assert streams.get(("live", 1), object) is live
    streams.get(("new", 1), object)
    assert len(streams) == 2 and ("dead", 1) not in streams
    streams.end(("live", 1))
    streams.end(("new", 1))
    streams.end(("never", 0))
    assert len(streams) == 0


def test_equal_request_ids_are_different_streams() -> None:
    streams: Streams[object] = Streams()
    assert streams.get(("0", 1), object) is not streams.get(("0", 2), object)
