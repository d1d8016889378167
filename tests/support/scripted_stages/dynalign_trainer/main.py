"""A stage of `dynalign run` that writes an artifact without contents and succeeds."""

import argparse
from pathlib import Path

from dynalign_contract.config import StageConfig
from support.builders import a_result
from support.finished_runs import write_artifact


def main() -> None:
    """Do what the command line of a stage says."""
    parser = argparse.ArgumentParser()
    for name in ("config", "root", "result"):
        parser.add_argument(f"--{name}", type=Path)
    options, _ = parser.parse_known_args()
    config = StageConfig.model_validate_json(options.config.read_text())
    artifact = write_artifact(options.root, config)
    result = a_result(path=artifact.path).model_copy(update={"artifact": artifact})
    options.result.write_bytes(result.encode())


if __name__ == "__main__":
    main()
