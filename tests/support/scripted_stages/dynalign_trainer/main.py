"""A stage of `dynalign run`, or a rollout, that writes artifacts without contents and succeeds."""

import argparse
from pathlib import Path

from dynalign_contract.config import StageConfig
from support.finished_runs import write_result


def main() -> None:
    """Do what the command line of a stage says."""
    parser = argparse.ArgumentParser()
    for name in ("config", "root", "result"):
        parser.add_argument(f"--{name}", type=Path)
    options, _ = parser.parse_known_args()
    config = StageConfig.model_validate_json(options.config.read_text())
    options.result.write_bytes(write_result(options.root, config)[0].encode())


if __name__ == "__main__":
    main()
