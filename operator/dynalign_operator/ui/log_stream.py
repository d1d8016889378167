"""Lines of logs as server-sent events: several at once where they come fast, and a sign of life where none come."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Final

from dynalign_contract.plain_text import plain_text
from dynalign_operator.clusters.run_source import LogLine

MOST_AT_ONCE: Final = 200
MAX_LINE: Final = 8_000
"""Characters of a line that are shown."""
_ALIVE_SECONDS: Final = 10.0
_ALIVE: Final = b": alive\n\n"


async def stream_lines(lines: AsyncIterator[LogLine], alive_seconds: float = _ALIVE_SECONDS) -> AsyncIterator[bytes]:
    """Events `lines` with JSON arrays, comments while there is nothing to say. Raises what the lines raise."""
    queue: asyncio.Queue[LogLine | None] = asyncio.Queue(MOST_AT_ONCE)

    async def read() -> None:
        try:
            async for line in lines:
                await queue.put(line)
        finally:
            await queue.put(None)

    reading = asyncio.create_task(read())
    try:
        while True:
            try:
                batch = [await asyncio.wait_for(queue.get(), alive_seconds)]
            except TimeoutError:
                yield _ALIVE
                continue
            while not queue.empty() and len(batch) < MOST_AT_ONCE:
                batch.append(queue.get_nowait())
            found = [_line(line) for line in batch if line is not None]
            if found:
                yield event("lines", found)
            if None in batch:
                break
        await reading
    finally:
        reading.cancel()


def event(name: str, value: object) -> bytes:
    """One server-sent event with a JSON value on one line."""
    return f"event: {name}\ndata: {json.dumps(value)}\n\n".encode()


def _line(line: LogLine) -> dict[str, str]:
    """Job, prefix of its shard, and the text without control characters."""
    origin, text = line.origin, plain_text(line.text)
    cut = f"{text[:MAX_LINE]} [{len(text) - MAX_LINE} more characters]" if len(text) > MAX_LINE else text
    heading = f"{origin.step}, attempt {origin.attempt} (Job {origin.job})"
    return {
        "heading": heading,
        "prefix": f"[{origin.step.stage}/{origin.index}] " if origin.has_others else "",
        "text": cut,
    }
