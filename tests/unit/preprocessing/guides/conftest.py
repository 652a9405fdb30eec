# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import pytest

from common.tokenizer import ChatTokenizer
from preprocessing.guides.build import Guide
from tests.support.guides import Accepts

EOS = 151645


@pytest.fixture(scope="package")
def accepts(qwen3_tokenizer_dir: Path) -> Accepts:
    """Whether a guide allows a model with Qwen3's vocabulary to write exactly a text."""
    xgrammar = pytest.importorskip("xgrammar")
    tokenizer = ChatTokenizer.load(qwen3_tokenizer_dir)
    info = xgrammar.TokenizerInfo.from_huggingface(tokenizer._tokenizer, vocab_size=151936)
    compiler = xgrammar.GrammarCompiler(info)
    compile_guide = {
        "json": lambda _: compiler.compile_json_schema('{"type": "object"}'),
        "json_schema": compiler.compile_json_schema,
        "regex": compiler.compile_regex,
        "ebnf_grammar": compiler.compile_grammar,
        "structural_tag": compiler.compile_structural_tag,
    }

    def check(guide: Guide | None, text: str) -> bool:
        assert guide is not None
        matcher = xgrammar.GrammarMatcher(compile_guide[guide.guide_type](guide.guide))
        # Token by token, including special tokens, as the engine does.
        ids = tokenizer.encode(text, add_special_tokens=False)
        return all(matcher.accept_token(item) for item in [*ids, EOS])

    return check
