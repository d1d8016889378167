"""Trains on the CPU with the configuration that DeepSpeed gets on a GPU, in bfloat16; prints it and what went wrong.

Products are those of bfloat16, and adapted layers PEFT's, as on a GPU, whether or not this CPU has instructions for them.
"""

import json
import sys
import tempfile
from pathlib import Path
from unittest.mock import patch

from dynalign_contract.settings import TrainingSettings
from dynalign_trainer.train.deepspeed import configuration
from dynalign_trainer.train.packed import precision
from lab.training_trials import EVERY_CASE, TINY_ON_CPU, compare_trainings


def main() -> None:
    sys.modules.setdefault("vllm", None)  # type: ignore[arg-type]
    gpu = patch.object(configuration, "count_gpus", lambda: 1)
    products = patch.object(precision, "multiplies_bfloat16", lambda: True)
    with gpu, products, tempfile.TemporaryDirectory() as folder:
        values, faults = compare_trainings(Path(folder), TINY_ON_CPU, EVERY_CASE)
        config = configuration.deepspeed_config(TrainingSettings(zero_stage=2))
    print(json.dumps({"config": config, "faults": faults, "cases": [*values]}))  # noqa: T201 - what the test reads


if __name__ == "__main__":
    main()
