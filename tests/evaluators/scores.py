# SPDX-License-Identifier: Apache-2.0
"""Evaluate a served checkpoint with lm-evaluation-harness: through the API, and with its own Hugging Face backend.

Runs with the server's packages and those of requirements/evaluators.txt: `scores.py URL NAME FOLDER DTYPE SCRATCH STEP`.
STEP: 1 for all 50 items, 3 for 20 of them. Writes SCRATCH/found.json: the answers and scores by backend.
tests/support/evaluators.py starts it and compares them.
"""

import itertools
import json
import sys
from pathlib import Path
from typing import Any

from lm_eval import simple_evaluate
from lm_eval.tasks import TaskManager

# Numbers of words in a text.
LENGTHS = range(5, 15)
# What a text repeats; also characters of several tokens.
CYCLES = [
    [" red", " green", " blue", " white"],
    [" 一月", " 二月", " 三月", " 四月"],
    [" 🍎", " 🤔", " 🌤️", " 🐕"],
    [" one", " two", " three", " four"],
    [" Été", " naïve", " garçon", " Ångström"],
]
TASKS: list[dict[str, Any]] = [
    {
        "task": "choices",
        "output_type": "multiple_choice",
        "doc_to_text": "{{text}}",
        "doc_to_choice": "choices",
        "doc_to_target": "answer",
        "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
    },
    {
        "task": "perplexity",
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "{{text}}{{choices[answer]}}",
        "metric_list": [{"metric": "word_perplexity"}],
    },
    {
        "task": "texts",
        "output_type": "generate_until",
        "doc_to_text": "{{text}}",
        "doc_to_target": "{{choices[answer]}}",
        "generation_kwargs": {"until": [","], "max_gen_toks": 8, "do_sample": False},
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
    },
]


def write_items(file: Path, step: int) -> None:
    """Write the data set: texts that repeat four words, and the four as answers of which one goes on.

    step: 3 writes texts of every third length only.
    """
    with file.open("w", encoding="utf-8") as lines:
        for seen, words in itertools.product(LENGTHS[::step], CYCLES):
            text = ",".join(words[at % 4] for at in range(seen)).strip() + ","
            item = {"text": text, "choices": words, "answer": seen % 4}
            lines.write(json.dumps(item, ensure_ascii=False) + "\n")


def evaluate(model: str, arguments: dict[str, Any], tasks: list[str], data: Path, **more: Any) -> dict[str, Any]:
    """Returns per task the scores, and the answers in the order of the items."""
    source = {"dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(data)}}, "test_split": "test"}
    chosen: list[Any] = [source | task for task in TASKS if task["task"] in tasks]
    done = simple_evaluate(
        model,
        model_args=arguments,
        tasks=chosen,
        task_manager=TaskManager(include_defaults=False),
        bootstrap_iters=0,
        **more,
    )
    answers = {
        task: [sample["filtered_resps"] for sample in sorted(samples, key=lambda sample: sample["doc_id"])]
        for task, samples in done["samples"].items()
    }
    scores = {
        task: {name: value for name, value in scores.items() if isinstance(value, float)}
        for task, scores in done["results"].items()
    }
    return {"answers": answers, "scores": scores}


def main(url: str, name: str, folder: str, dtype: str, scratch: str, step: str) -> None:
    """Evaluate with each backend, and write what they found."""
    data = Path(scratch) / "items.jsonl"
    write_items(data, int(step))
    api = {"model": name, "tokenizer": folder, "max_retries": 1, "num_concurrent": 4}
    completions = api | {"base_url": f"{url}/v1/completions", "max_length": 512}
    scored, chat = ["choices", "perplexity", "texts"], {"apply_chat_template": True}
    local = {"pretrained": folder, "dtype": dtype, "device": "cpu", "max_length": 512}
    found = {
        "hf": evaluate("hf", local, scored, data, batch_size=8),
        "ids": evaluate("local-completions", completions, scored, data, batch_size=8),
        "text": evaluate("local-completions", completions | {"tokenized_requests": False}, scored, data),
        "hf chat": evaluate("hf", local, ["texts"], data, batch_size=8, **chat),
        "chat": evaluate(
            "local-chat-completions", api | {"base_url": f"{url}/v1/chat/completions"}, ["texts"], data, **chat
        ),
    }
    (Path(scratch) / "found.json").write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
