# SPDX-License-Identifier: Apache-2.0
"""Stored responses: continuing them, and `/v1/responses/{id}` to read and delete them."""

from dataclasses import dataclass, replace
from typing import Any

from fastapi import APIRouter, Request, Response

from common.errors import RequestError
from frontend.endpoints.responses_input import PREVIOUS
from frontend.errors import ApiError
from frontend.serving.answer import new_id
from frontend.serving.response_store import ResponseStore
from frontend.telemetry.request_record import current

MAX_LISTED = 100
DEFAULT_LISTED = 20

router = APIRouter(prefix="/v1/responses/{response_id}")


@dataclass(frozen=True, slots=True)
class Keeping:
    """How one request uses the store.

    earlier: the items before its own, None if it continues no stored response; store: None if it is not to be stored.
    """

    earlier: list[dict[str, Any]] | None
    store: ResponseStore | None

    def without_contents(self) -> "Keeping":
        """Return one that knows of the earlier items only their ids, which is all that `keep` needs."""
        return self if self.earlier is None else replace(self, earlier=[{"id": item["id"]} for item in self.earlier])

    async def keep(self, response: dict[str, Any], given: Any, patience: float) -> bool:
        """Store a response to this input, within `patience` seconds. Returns whether it is stored."""
        if self.store is None:
            return False
        items = _items(given, {item["id"] for item in self.earlier or ()})
        return await self.store.put(current().owner, response, items, patience)


async def find_earlier(store: ResponseStore | None, raw: dict[str, Any]) -> Keeping:
    """Read what a body says about stored responses. Raises RequestError if those that it continues are not there."""
    wanted, previous = raw.get("store"), raw.get(PREVIOUS)
    if not isinstance(wanted, bool | None):
        raise RequestError("store must be true or false", param="store")
    # Without a store, `refuse` tells of the field.
    if store is None or previous is None:
        return Keeping(None, None if wanted is False else store)
    if not isinstance(previous, str):
        raise RequestError(f"{PREVIOUS} must be a text", param=PREVIOUS)
    try:
        earlier = await store.dialogue(current().owner, previous)
    except RequestError as error:
        raise RequestError(error.message, kind=error.kind, param=PREVIOUS) from None
    if earlier is None:
        raise RequestError(f"{PREVIOUS}: this response, or one before it, is not stored (any more)", param=PREVIOUS)
    return Keeping(earlier, None if wanted is False else store)


@router.get("")
async def read(request: Request, response_id: str) -> Response:
    """Return a stored response."""
    if request.query_params.get("stream", "false") != "false":
        raise RequestError("Only a response that is being written could be streamed", param="stream")
    store: ResponseStore | None = request.app.state.response_store
    return _found(None if store is None else await store.get(current().owner, response_id))


@router.delete("")
async def delete(request: Request, response_id: str) -> dict[str, Any]:
    """Delete a stored response."""
    store: ResponseStore | None = request.app.state.response_store
    if store is None or not await store.delete(current().owner, response_id):
        raise _not_stored()
    return {"id": response_id, "object": "response", "deleted": True}


@router.get("/input_items")
async def list_input(request: Request, response_id: str) -> Response:
    """Return the items that led to a stored response, with those of the stored responses before it, the last first."""
    limit, order, after = _paging(request)
    store: ResponseStore | None = request.app.state.response_store
    if store is None:
        raise _not_stored()
    paging: dict[str, Any] = {"limit": limit, "descending": order == "desc", "after": after}
    return _found(await store.input_items(current().owner, response_id, **paging))


def _paging(request: Request) -> tuple[int, str, str | None]:
    asked = request.query_params
    limit, order = asked.get("limit", str(DEFAULT_LISTED)), asked.get("order", "desc")
    # Python refuses to read very long numbers.
    if not (limit.isascii() and limit.isdigit() and len(limit) <= 4 and 1 <= int(limit) <= MAX_LISTED):
        raise RequestError(f"limit must be a number from 1 to {MAX_LISTED}", param="limit")
    if order not in ("asc", "desc"):
        raise RequestError("order must be one of asc, desc", param="order")
    return int(limit), order, asked.get("after")


def _found(body: bytes | None) -> Response:
    if body is None:
        raise _not_stored()
    return Response(body, media_type="application/json")


def _not_stored() -> ApiError:
    return ApiError("unknown_path", "No response with this id is stored, or none with all before it")


def _items(given: Any, taken: set[str]) -> list[dict[str, Any]]:
    """Return a request's input as items that have a type, contents of parts, and ids that differ from `taken`."""
    if isinstance(given, str):
        given = [{"role": "user", "content": given}]
    items = []
    for item in given:
        kept = item.get("id") if isinstance(item.get("id"), str) and item["id"] not in taken else _id(item)
        taken.add(kept)
        items.append({"type": "message", **_given(item), "id": kept})
    return items


def _id(item: dict[str, Any]) -> str:
    kinds = {"function_call": "fc", "function_call_output": "fco", "reasoning": "rs"}
    return new_id(kinds.get(str(item.get("type")), "msg"))


def _given(item: dict[str, Any]) -> dict[str, Any]:
    fields = {name: value for name, value in item.items() if value is not None}
    if "role" in fields and isinstance(fields.get("content"), str):
        kind = "output_text" if fields["role"] == "assistant" else "input_text"
        fields["content"] = [{"type": kind, "text": fields["content"]}]
    return fields
