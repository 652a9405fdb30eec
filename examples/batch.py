# SPDX-License-Identifier: Apache-2.0
"""Answer all requests of a file, several at a time. Both files have the form of OpenAI's batch API.

python examples/batch.py requests.jsonl answers.jsonl

A line of requests.jsonl: {"custom_id": "1", "body": {"messages": [{"role": "user", "content": "Who are you?"}]}}
"""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from arguments import argument_parser
from openai import APIStatusError, AsyncOpenAI

parser = argument_parser(__doc__)
parser.add_argument("requests", type=Path)
parser.add_argument("answers", type=Path)
parser.add_argument("--at-once", type=int, default=32, help="requests at the same time (default: %(default)s)")
args = parser.parse_args()


async def answered(line: str, client: AsyncOpenAI, places: asyncio.Semaphore) -> dict[str, Any]:
    request = json.loads(line)
    # `extra_body` takes fields that OpenAI's API does not have as well, and replaces the model if the line names one.
    async with places:
        try:
            made = await client.chat.completions.create(messages=[], model=args.model, extra_body=request["body"])
            return {"custom_id": request["custom_id"], "response": {"status_code": 200, "body": made.to_dict()}}
        except APIStatusError as refused:
            return {"custom_id": request["custom_id"], "error": refused.body}


async def main() -> None:
    places, lines = asyncio.Semaphore(args.at_once), args.requests.read_text(encoding="utf-8").splitlines()
    # A full server answers 429 or 503; the client waits and asks again.
    async with AsyncOpenAI(base_url=args.url, api_key=args.key, max_retries=10) as client:
        with args.answers.open("w", encoding="utf-8") as file:
            made = asyncio.as_completed([answered(line, client, places) for line in lines])
            for count, done in enumerate(made, 1):
                print(json.dumps(await done, ensure_ascii=False), file=file, flush=True)
                print(f"\r{count} of {len(lines)}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)


asyncio.run(main())
