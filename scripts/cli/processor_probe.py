# SPDX-License-Identifier: Apache-2.0
"""Load vLLM's processor of a checkpoint as `preprocessing` does, and print as JSON what it takes.

A program of its own, for the doctor: to import vLLM takes seconds, and what fails in it must not end the doctor.
"""

import json
import sys


def main() -> int:
    """Read the engine's options as JSON from standard input; the last line of the output is the result."""
    from vllm.multimodal import MULTIMODAL_REGISTRY

    from engines.options import EngineOptions
    from engines.vllm.config import engine_args

    given = json.load(sys.stdin)
    config = engine_args(EngineOptions("vllm", given.pop("model"), given)).create_model_config()
    if not config.is_multimodal_model:
        print(json.dumps({}))
        return 0
    processor = MULTIMODAL_REGISTRY.create_processor(config)
    print(json.dumps(dict(processor.info.get_supported_mm_limits())))
    return 0


if __name__ == "__main__":
    sys.exit(main())
