"""Last of three plain scripts: TRL trains on the answers and rewards that the others have written.

python -m benchmarks.peers.script_train PLAN FOLDER
"""

import sys
from pathlib import Path
from typing import Any

from benchmarks.peers.plan import TRAIN, Plan, Report
from benchmarks.peers.samples import REPORT_FILE, read_rewards, read_samples
from benchmarks.peers.stopwatch import Stopwatch
from benchmarks.peers.trl_trainer import open_trainer


def main(plan: Plan, folder: Path) -> None:
    """Train on the recorded answers and write the adapter."""
    watch = Stopwatch()
    samples, rewards = read_samples(folder), read_rewards(folder)

    def recorded(prompts: list[Any], _trainer: Any) -> dict[str, Any]:
        """Answers in the trainer's order, which is that of the prompts; further fields go to the reward function."""
        asked, known = [prompt[-1]["content"] for prompt in prompts], {p.prompt_id: p.text for p in plan.prompts}
        if asked != [known[sample.prompt_id] for sample in samples]:
            raise RuntimeError("TRL asks for the answers in another order than that of the prompts")
        return {
            "prompt_ids": [sample.prompt_ids for sample in samples],
            "completion_ids": [sample.completion_ids for sample in samples],
            "logprobs": [sample.logprobs for sample in samples],
            "reward": rewards,
        }

    trainer = open_trainer(plan, folder / "trainer", lambda reward, **_: reward, recorded)
    with watch.part(TRAIN):
        trainer.train()
    trainer.save_model(str(folder / "policy"))
    report = Report(seconds=watch.seconds, updates=trainer.state.global_step)
    (folder / REPORT_FILE.format(TRAIN)).write_text(report.to_json())


if __name__ == "__main__":
    main(Plan.read(Path(sys.argv[1])), Path(sys.argv[2]))
