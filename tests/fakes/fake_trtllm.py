#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A fake of NVIDIA's convert_checkpoint.py, quantize.py and trtllm-build: takes their flags, writes files like theirs.

The name by which it is called chooses the tool. The environment variable FAKE_TRTLLM changes its behaviour: "fail TOOL"
ends that tool with an error, "hang TOOL" never ends it, "lose TOOL" writes nothing.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from tests.fakes.trtllm_flags import FLAGS, SWITCH

ME = Path(sys.argv[0])


def parse() -> argparse.Namespace:
    name = next(name for name in FLAGS if f"/{ME}".endswith(f"/{name}"))
    parser = argparse.ArgumentParser(prog=name, allow_abbrev=False)
    for flag, kind in FLAGS[name].items():
        if kind == SWITCH:
            parser.add_argument(flag, action="store_true")
        elif isinstance(kind, tuple):
            parser.add_argument(flag, choices=kind)
        else:
            parser.add_argument(flag, type=kind)
    return parser.parse_args()


def write(folder: Path, config: dict[str, Any], name: str, world_size: int) -> None:
    (folder / "config.json").write_text(json.dumps(config))
    for rank in range(world_size):
        (folder / name.format(rank)).write_bytes(b"\0" * 10 * (rank + 1))


def main() -> None:
    options = vars(parse())
    print(f"{ME.name} at work", flush=True)
    wish, _, tool = os.environ.get("FAKE_TRTLLM", "").partition(" ")
    if tool == ME.name and wish == "fail":
        sys.exit("CUDA out of memory")
    if tool == ME.name and wish == "hang":
        time.sleep(60)
    if tool == ME.name and wish == "lose":
        return
    if ME.name == "trtllm-build":
        config = json.loads((Path(options["checkpoint_dir"]) / "config.json").read_text())
        write(Path(options["output_dir"]), {"pretrained_config": config}, "rank{}.engine", config["world_size"])
        return
    assert (Path(options["model_dir"]) / "config.json").is_file()
    world_size = options.get("world_size") or options["tp_size"] * options["pp_size"]
    target = Path(options.get("output_model_dir") or options["output_dir"])
    write(target, {"world_size": world_size}, "rank{}.safetensors", world_size)


if __name__ == "__main__":
    main()
