# SPDX-License-Identifier: Apache-2.0
"""LangChain's and LlamaIndex's embeddings; run by tests/integration/test_embeddings.py."""

import os

import pytest
from langchain_core.vectorstores import InMemoryVectorStore
from langchain_openai import OpenAIEmbeddings
from llama_index.core import Document, VectorStoreIndex
from llama_index.embeddings.openai_like import OpenAILikeEmbedding
from openai import OpenAI

URL, MODEL = f"{os.environ['TRITON_CHAT_TEST_URL']}/v1", "qwen3-embedding"
TEXTS = ["The cat sat on the mat.", "Paris is the capital of France.", "One two three four five."]


@pytest.fixture(scope="module")
def expected() -> list[list[float]]:
    made = OpenAI(base_url=URL, api_key="unused").embeddings.create(model=MODEL, input=TEXTS)
    return [one.embedding for one in made.data]


def test_langchain(expected: list[list[float]]) -> None:
    # Its default cuts texts by the tokenizer of OpenAI's models, and sends the ids.
    embeddings = OpenAIEmbeddings(model=MODEL, base_url=URL, api_key="unused", check_embedding_ctx_length=False)
    for one, other in zip(embeddings.embed_documents(TEXTS), expected, strict=True):
        assert one == pytest.approx(other, abs=1e-5)
    store = InMemoryVectorStore.from_texts(TEXTS, embeddings)
    assert store.similarity_search(TEXTS[1], k=1)[0].page_content == TEXTS[1]


def test_langchain_with_fewer_dimensions() -> None:
    embeddings = OpenAIEmbeddings(
        model=MODEL, base_url=URL, api_key="unused", check_embedding_ctx_length=False, dimensions=32
    )
    assert len(embeddings.embed_query(TEXTS[0])) == 32


def test_llamaindex(expected: list[list[float]]) -> None:
    embeddings = OpenAILikeEmbedding(model_name=MODEL, api_base=URL, api_key="unused", embed_batch_size=2)
    for one, other in zip(embeddings.get_text_embedding_batch(TEXTS), expected, strict=True):
        assert one == pytest.approx(other, abs=1e-5)
    index = VectorStoreIndex.from_documents([Document(text=text) for text in TEXTS], embed_model=embeddings)
    found = index.as_retriever(similarity_top_k=1).retrieve(TEXTS[2])
    assert found[0].text == TEXTS[2]
