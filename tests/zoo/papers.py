"""The files of examples/papers on this machine's CPU: `dynalign run FILE --set` with a random model of the same family."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import yaml

from dynalign_contract.settings import ChatSettings
from lab.local_runs import LocalRun
from zoo.families import Family
from zoo.loop import Loop
from zoo.loop_records import FOLDER as RECORDS
from zoo.table import FAMILIES

_PAPERS: Final = Path(__file__).parents[2] / "examples" / "papers"
_BY_NAME: Final = {family.name: family for family in FAMILIES}
_LETTERS: Final = (("Ġ", "A"), ("Ġ", "B"))
"""Tokens of every published tokenizer, from which the built-in objective's pairwise judge chooses."""
_SHRUNK: Final = {
    # less of the same
    "spec.iterations": "2",
    "spec.prompts.perIteration": "8",
    "spec.prompts.heldOut": "2",
    "spec.generation.maxTokens": "40",
    "spec.evaluation.every": "2",
    # one process in place of eight GPUs
    "spec.generation.shards": "1",
    "spec.training.gpusPerNode": "1",
    # questions of a benchmark, which come from a hub
    "spec.evaluation.capability": "null",
    # the next token of a random model is hardly ever a digit
    "spec.judging.minMass": "0",
    # all policies lose to a base model that is as random as they are
    "spec.export": "{policy: Last}",
}
"""What is set besides the model: sizes, and what a random model on a CPU cannot do."""


@dataclass(frozen=True)
class Twin:
    """A paper's file, and the family whose random model takes the place of the published one."""

    paper: str
    """File of examples/papers, without its ending."""
    family: Family

    @property
    def file(self) -> Path:
        """The run file as it is published."""
        return _PAPERS / f"{self.paper}.yaml"

    @property
    def record(self) -> Path:
        """What is on record of the twin's loop."""
        return RECORDS / "papers" / f"{self.paper}.json"

    def settings(self, model: Path) -> dict[str, str]:
        """Field -> value of each `--set`."""
        return {"spec.model.uri": str(model), **_SHRUNK}

    def run(self, folder: Path) -> Loop:
        """Run the file to its end. Raises AssertionError with the logs where it does not succeed."""
        settings = self.settings(replace(self.family, pairs=_LETTERS).write(folder / "model"))
        run = LocalRun(self.file, folder / "run", tuple(f"{field}={value}" for field, value in settings.items()))
        result = run.finish()
        assert result.returncode == 0, f"{result.stdout}\n{result.stderr}\n{run.logs()}"
        chat = yaml.safe_load(self.file.read_text())["spec"]["model"]["chat"]
        return Loop(run, ChatSettings.model_validate(chat, by_alias=True))


TWINS: Final = (
    Twin("2512.05464", _BY_NAME["gpt-oss, as published"]),
    Twin("2603.10476-baseline", _BY_NAME["Qwen3"]),
)
"""The papers' files and their twins."""
