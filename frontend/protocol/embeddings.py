# SPDX-License-Identifier: Apache-2.0
"""The bodies of POST /v1/embeddings, and of /v1/rerank and /v1/score, in the formats of OpenAI, Jina and vLLM."""

from typing import Annotated, Any, Literal

from pydantic import AliasChoices, Field, ValidatorFunctionWrapHandler, WithJsonSchema, field_validator, model_validator

from common.errors import RequestError
from common.sampling import INT32_MAX
from frontend.protocol.common import Body, Truncation

Prompt = str | list[int]
Text = Annotated[str, Field(min_length=1)]

_IDS_SCHEMA = {"type": "array", "minItems": 1, "items": {"type": "integer", "minimum": 0, "maximum": INT32_MAX}}
_ONE_SCHEMA = {"anyOf": [{"type": "string", "minLength": 1}, _IDS_SCHEMA]}
_INPUT_SCHEMA = {"anyOf": [*_ONE_SCHEMA["anyOf"], {"type": "array", "minItems": 1, "items": _ONE_SCHEMA}]}
_DOCUMENT_SCHEMA = {
    "anyOf": [
        {"type": "string", "minLength": 1},
        {"type": "object", "required": ["text"], "properties": {"text": {"type": "string", "minLength": 1}}},
    ]
}


class PoolingBody(Body):
    """The fields that all of them have. truncate_prompt_tokens: -1 for the context length."""

    model: str | None = None
    truncate_prompt_tokens: Truncation | None = None


class EmbeddingBody(PoolingBody):
    """Texts to embed. `input` becomes a list: of texts, or of lists of token ids."""

    input: Annotated[list[str] | list[list[int]], WithJsonSchema(_INPUT_SCHEMA)]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, Field(ge=1, le=INT32_MAX)] | None = None

    @field_validator("input", mode="wrap")
    @classmethod
    def _as_list(cls, value: Any, validate: ValidatorFunctionWrapHandler) -> list[str] | list[list[int]]:
        one = isinstance(value, str) or (isinstance(value, list) and value and type(value[0]) is int)
        try:
            inputs: list[str] | list[list[int]] = validate([value] if one else value)
        except ValueError:
            raise ValueError("must be a text, token ids, a list of texts, or a list of lists of token ids") from None
        if not inputs or not all(inputs):
            raise ValueError("must not be empty")
        if any(min(ids) < 0 or max(ids) > INT32_MAX for ids in inputs if isinstance(ids, list)):
            raise ValueError("token ids must be from 0 to 2147483647")
        return inputs


class RerankBody(PoolingBody):
    """A query, and documents to sort by their relevance for it. top_n: how many to return, 0 for all."""

    query: Text
    documents: Annotated[list[str], Field(min_length=1), WithJsonSchema({"type": "array", "items": _DOCUMENT_SCHEMA})]
    top_n: Annotated[int, Field(ge=0, le=INT32_MAX)] | None = None
    return_documents: bool | None = None

    @field_validator("documents", mode="before")
    @classmethod
    def _texts(cls, value: Any) -> Any:
        """Take the text of documents in Cohere's and Jina's form of an object."""
        documents = value if isinstance(value, list) else [value]
        texts = [one.get("text") if isinstance(one, dict) else one for one in documents]
        if not all(isinstance(one, str) and one for one in texts):
            raise ValueError("must be texts that are not empty, or objects with such a text")
        return texts


class ScoreBody(PoolingBody):
    """Pairs of texts to score: one text against each of others, or as many of both."""

    text_1: list[Text] = Field(validation_alias=AliasChoices("text_1", "queries", "data_1"), min_length=1)
    text_2: list[Text] = Field(validation_alias=AliasChoices("text_2", "documents", "items", "data_2"), min_length=1)

    @field_validator("text_1", "text_2", mode="before")
    @classmethod
    def _as_list(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @model_validator(mode="after")
    def _agrees(self) -> "ScoreBody":
        if len(self.text_1) not in (1, len(self.text_2)):
            raise RequestError("text_1 must be one text, or as many as text_2", param="text_1")
        return self
