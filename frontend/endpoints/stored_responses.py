# SPDX-License-Identifier: Apache-2.0
"""Stored responses: continuing them, and `/v1/responses/{id}` to read and delete them."""

from dataclasses import dataclass
from typing import Any

import orjson
from fastapi import APIRouter, Request, Response

from common.errors import RequestError
from frontend.endpoints.responses_input import PREVIOUS
from frontend.errors import ApiError
from frontend.serving.answer import new_id
from frontend.serving.response_store import ResponseStore, Stored
from frontend.telemetry.request_record import current

MAX_LISTED = 100
DEFAULT_LISTED = 20

router = APIRouter(prefix="/v1/responses/{response_id}")


@dataclass(frozen=True, slots=True)
class Keeping:
    """How one request uses the store. earlier: the items before its own; store: None if it is not to be stored."""

    earlier: list[dict[str, Any]]
    store: ResponseStore | None

    async def keep(self, response: dict[str, Any], raw: dict[str, Any]) -> bool:
        """Store a response to this body. Returns whether it is stored."""
        return self.store is not None and await self.store.put(current().owner, response, _items(raw["input"]))


async def find_earlier(store: ResponseStore | None, raw: dict[str, Any]) -> Keeping:
    """Read what a body says about stored responses. Raises RequestError if those that it continues are not there."""
    wanted, previous = raw.get("store"), raw.get(PREVIOUS)
    if not isinstance(wanted, bool | None):
        raise RequestError("store must be true or false", param="store")
    # Without a store, `refuse` tells of the field.
    if store is None or not previous:
        return Keeping([], None if wanted is False else store)
    if not isinstance(previous, str):
        raise RequestError(f"{PREVIOUS} must be a text", param=PREVIOUS)
    try:
        found = await store.dialogue(current().owner, previous)
    except RequestError as error:
        raise RequestError(error.message, kind=error.kind, param=PREVIOUS) from None
    if found is None:
        raise RequestError(f"{PREVIOUS}: this response, or one before it, is not stored (any more)", param=PREVIOUS)
    return Keeping([item for one in found for item in one.items()], None if wanted is False else store)


@router.get("")
async def read(request: Request, response_id: str) -> Response:
    """Return a stored response."""
    if request.query_params.get("stream", "false") != "false":
        raise RequestError("Only a response that is being written could be streamed", param="stream")
    return Response((await _stored(request, response_id)).body, media_type="application/json")


@router.delete("")
async def delete(request: Request, response_id: str) -> dict[str, Any]:
    """Delete a stored response."""
    store: ResponseStore | None = request.app.state.response_store
    if store is None or not await store.delete(current().owner, response_id):
        raise _not_stored()
    return {"id": response_id, "object": "response", "deleted": True}


@router.get("/input_items")
async def list_input(request: Request, response_id: str) -> dict[str, Any]:
    """Return the items that led to a stored response, with those of the stored responses before it, the last first."""
    limit, order, after = _paging(request)
    last = await _stored(request, response_id)
    before = (
        [] if last.previous is None else await request.app.state.response_store.dialogue(current().owner, last.previous)
    )
    items = [item for one in before or () for item in one.items()] + orjson.loads(last.input)
    if order == "desc":
        items.reverse()
    ids = [item["id"] for item in items]
    if after is not None and after not in ids:
        raise RequestError("after must be the id of an item of this list", param="after")
    start = 0 if after is None else ids.index(after) + 1
    page = items[start : start + limit]
    ends = {"first_id": page[0]["id"], "last_id": page[-1]["id"]} if page else {"first_id": None, "last_id": None}
    return {"object": "list", "data": page, **ends, "has_more": start + limit < len(items)}


def _paging(request: Request) -> tuple[int, str, str | None]:
    asked = request.query_params
    limit, order = asked.get("limit", str(DEFAULT_LISTED)), asked.get("order", "desc")
    if not (limit.isascii() and limit.isdigit() and 1 <= int(limit[:4]) <= MAX_LISTED):
        raise RequestError(f"limit must be a number from 1 to {MAX_LISTED}", param="limit")
    if order not in ("asc", "desc"):
        raise RequestError("order must be one of asc, desc", param="order")
    return int(limit), order, asked.get("after")


async def _stored(request: Request, response_id: str) -> Stored:
    store: ResponseStore | None = request.app.state.response_store
    found = None if store is None else await store.get(current().owner, response_id)
    if found is None:
        raise _not_stored()
    return found


def _not_stored() -> ApiError:
    return ApiError("unknown_path", "No response with this id is stored")


def _items(given: Any) -> list[dict[str, Any]]:
    """Return a request's input as items that have an id and a type, their contents as parts."""
    if isinstance(given, str):
        given = [{"role": "user", "content": given}]
    return [{"id": _id(item), "type": "message", **_given(item)} for item in given]


def _id(item: dict[str, Any]) -> str:
    kinds = {"function_call": "fc", "function_call_output": "fco", "reasoning": "rs"}
    return new_id(kinds.get(str(item.get("type")), "msg"))


def _given(item: dict[str, Any]) -> dict[str, Any]:
    fields = {name: value for name, value in item.items() if value is not None}
    if "role" in fields and isinstance(fields.get("content"), str):
        kind = "output_text" if fields["role"] == "assistant" else "input_text"
        fields["content"] = [{"type": kind, "text": fields["content"]}]
    return fields
