"""docs/reference/rewards.v1.schema.json, generated from the protocol: `--write FILE`, or `--check FILE` for drift."""

import json
import sys
from collections.abc import Sequence

from dynalign_contract.reward_protocol import build_json_schema
from dynalign_operator.generate.generator import run_generator


def main(argv: Sequence[str] | None = None) -> int:
    """Write the file, or compare it and print a diff; returns the exit code."""
    text = json.dumps(build_json_schema(), indent=2) + "\n"
    return run_generator("JSON schemas of the protocol of rewards", text, argv)


if __name__ == "__main__":
    sys.exit(main())
