"""Before the trainer on the path: its stages do no work, and everything else of it is the trainer's own."""

from pathlib import Path

__path__.append(str(Path(__file__).parents[4] / "trainer" / "dynalign_trainer"))
