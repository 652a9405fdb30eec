# SPDX-License-Identifier: Apache-2.0
"""The table of docs/request-fields.md, made from the code's own lists of fields.

`python -m tests.support.field_table` prints it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pydantic import AliasChoices, BaseModel

from frontend.endpoints import messages_input, responses_input
from frontend.protocol import ignored, refused
from frontend.protocol.chat import ChatBody
from frontend.protocol.completions import CompletionBody
from frontend.protocol.embeddings import EmbeddingBody, RerankBody, ScoreBody


@dataclass(frozen=True)
class Decisions:
    """What one endpoint does with the fields that are known. makes_chats: its model generates text."""

    honoured: frozenset[str]
    ignored: Mapping[str, str]
    refused: refused.Refused
    path: str
    makes_chats: bool = True

    def all(self) -> set[str]:
        """Every field that is decided."""
        return {*self.honoured, *self.ignored, *self.refused}


def _names(body: type[BaseModel]) -> frozenset[str]:
    """The fields of a model under all their names."""
    names = set(body.model_fields)
    for field in body.model_fields.values():
        if isinstance(field.validation_alias, AliasChoices):
            names |= {choice for choice in field.validation_alias.choices if isinstance(choice, str)}
    return frozenset(names)


# A chat template of a request's own is refused unless the operator allows it; its reason says so.
ENDPOINTS: Mapping[str, Decisions] = {
    "chat": Decisions(
        _names(ChatBody) - refused.REFUSED_IN_CHAT.keys(),
        ignored.IGNORED_IN_CHAT,
        refused.REFUSED_IN_CHAT,
        "/v1/chat/completions",
    ),
    "completions": Decisions(
        _names(CompletionBody),
        ignored.IGNORED_IN_COMPLETIONS,
        refused.REFUSED_IN_COMPLETIONS,
        "/v1/completions",
    ),
    "responses": Decisions(
        frozenset({*responses_input.SAME, *responses_input.CONVERTED}),
        ignored.IGNORED_IN_RESPONSES,
        refused.REFUSED_IN_RESPONSES,
        "/v1/responses",
    ),
    "messages": Decisions(
        frozenset({*messages_input.SAME, *messages_input.CONVERTED}),
        ignored.IGNORED_IN_MESSAGES,
        refused.REFUSED_IN_MESSAGES,
        "/v1/messages",
    ),
    "embeddings": Decisions(
        _names(EmbeddingBody),
        ignored.IGNORED_IN_EMBEDDINGS,
        refused.REFUSED_IN_EMBEDDINGS,
        "/v1/embeddings",
        makes_chats=False,
    ),
    "rerank": Decisions(
        _names(RerankBody), ignored.IGNORED_IN_SCORES, refused.REFUSED_IN_SCORES, "/v1/rerank", makes_chats=False
    ),
    "score": Decisions(
        _names(ScoreBody), ignored.IGNORED_IN_SCORES, refused.REFUSED_IN_SCORES, "/v1/score", makes_chats=False
    ),
}
_TAKEN, _IGNORED, _REFUSED = "yes", "ignored", "400"


def table() -> str:
    """Every known field, what each endpoint does with it, and why it is not honoured everywhere."""
    every = sorted(set().union(*(one.all() for one in ENDPOINTS.values())))
    heads = ["field", *ENDPOINTS, "why"]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    lines += ["| " + " | ".join([f"`{name}`", *_row(name)]).rstrip() + " |" for name in every]
    return "\n".join(lines)


def _row(name: str) -> Iterable[str]:
    reasons: dict[str, list[str]] = {}
    for endpoint, one in ENDPOINTS.items():
        if name in one.honoured:
            yield _TAKEN
        elif name in one.ignored:
            yield _IGNORED
            reasons.setdefault(one.ignored[name], []).append(endpoint)
        elif name in one.refused:
            yield _REFUSED
            reasons.setdefault(refused.reasons(one.refused)[name], []).append(endpoint)
        else:
            yield ""
    several = len(reasons) > 1
    yield "; ".join(f"{', '.join(where)}: {why}" if several else why for why, where in reasons.items())


if __name__ == "__main__":
    print(table())
