"""The preload server without a preload: as on a machine with a GPU, every stage is a program of its own."""

import runpy
from pathlib import Path

from dynalign_trainer.runtime import machine

machine.count_gpus = lambda: 1
runpy.run_path(str(Path(__file__).parents[4] / "trainer/dynalign_trainer/preload_server.py"), run_name="__main__")
