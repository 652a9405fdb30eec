# SPDX-License-Identifier: Apache-2.0
"""Load vLLM's processor of a checkpoint as `preprocessing` does, and print as JSON how many of each kind it takes.

A program of its own, for the doctor: to import vLLM takes seconds, and what fails in it must not end the doctor.
"""

import json
import sys


def main() -> int:
    """Read `model`, `engine` and its options from standard input; the last line of the output is the result."""
    from common.chat.content_form import KINDS
    from engines.vllm.processor import MediaProcessor
    from python_backend.config import ModelParameters

    given = json.load(sys.stdin)
    values = {"model_path": given.pop("model"), "engine": given.pop("engine"), "engine_options": json.dumps(given)}
    processor = MediaProcessor.load(ModelParameters("preprocessing", values))
    print(json.dumps({kind: processor.limit(kind) for kind in KINDS if processor.limit(kind)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
