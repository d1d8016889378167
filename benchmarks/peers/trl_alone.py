"""TRL's GRPOTrainer in one process: it samples with transformers, and the policy itself is the reward function.

python -m benchmarks.peers.trl_alone PLAN FOLDER
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import torch

from benchmarks.peers.plan import GENERATE, JUDGE, TRAIN, Plan, Report, digest_of
from benchmarks.peers.questions import judge_candidates
from benchmarks.peers.samples import REPORT_FILE
from benchmarks.peers.stopwatch import Stopwatch
from benchmarks.peers.trl_trainer import open_trainer
from dynalign_trainer.scoring.contexts import Candidate

NAME: Final = "trl"
_BATCH: Final = 16
"""Questions of one forward pass."""


class PolicyReward:
    """What the reward function needs, and what it has seen."""

    def __init__(self, plan: Plan, watch: Stopwatch) -> None:
        self._plan = plan
        self._watch = watch
        self.trainer: Any = None
        """Set before training begins: TRL wants the function first."""
        self.tokens = 0
        self.questions = 0

    def policy(
        self,
        prompts: Sequence[Any],
        completions: Sequence[Any],
        completion_ids: Sequence[Sequence[int]],
        prompt_id: Sequence[str],
        **_: object,
    ) -> list[float]:
        """The reward function: the policy as it is now answers the judge's questions."""
        self.tokens += sum(map(len, completion_ids))
        candidates = [
            Candidate(name, chat, completion[-1]["content"])
            for name, chat, completion in zip(prompt_id, prompts, completions, strict=True)
        ]
        model = self.trainer.accelerator.unwrap_model(self.trainer.model)
        tokenizer = self.trainer.processing_class

        def answer(questions: Sequence[Sequence[int]], tokens: Sequence[int]) -> list[list[float]]:
            return score_next(model, tokenizer.pad_token_id, questions, tokens)

        was_training = model.training
        model.eval()
        with self._watch.part(JUDGE):
            judged = judge_candidates(self._plan, tokenizer, candidates, answer)
        model.train(was_training)
        self.questions += len(judged.questions)
        return judged.rewards


def score_next(model: Any, pad: int, questions: Sequence[Sequence[int]], tokens: Sequence[int]) -> list[list[float]]:
    """Log-probabilities of tokens as the next ones, in batches of like length; shape (questions, tokens)."""
    order = sorted(range(len(questions)), key=lambda i: -len(questions[i]))
    found: dict[int, list[float]] = {}
    for start in range(0, len(order), _BATCH):
        batch = order[start : start + _BATCH]
        width = len(questions[batch[0]])
        missing = [width - len(questions[i]) for i in batch]
        ids = torch.tensor([[pad] * gap + list(questions[i]) for i, gap in zip(batch, missing, strict=True)])
        mask = torch.tensor([[0] * gap + [1] * (width - gap) for gap in missing])
        with torch.no_grad():
            logits = model(
                input_ids=ids.to(model.device),
                attention_mask=mask.to(model.device),
                position_ids=(mask.cumsum(1) - 1).clamp(min=0).to(model.device),
                logits_to_keep=1,
                use_cache=False,
            ).logits[:, -1]
        rows = logits.float().log_softmax(-1)[:, list(tokens)].tolist()
        found |= dict(zip(batch, rows, strict=True))
    return [found[i] for i in range(len(questions))]


def main(plan: Plan, folder: Path) -> None:
    """Sample, judge and train, and write the adapter."""
    watch = Stopwatch()
    reward = PolicyReward(plan, watch)
    trainer = reward.trainer = open_trainer(plan, folder / "trainer", reward.policy)
    asked: list[list[int]] = []
    model = trainer.accelerator.unwrap_model(trainer.model)
    sample = watch.timed(GENERATE, model.generate)

    def generate(**named: Any) -> Any:
        rows = zip(named["input_ids"], named["attention_mask"].bool(), strict=True)
        asked.extend(ids[mask].tolist() for ids, mask in rows)
        return sample(**named)

    model.generate = generate
    with watch.part(TRAIN):
        trainer.train()
    trainer.save_model(str(folder / "policy"))
    groups = asked[:: plan.generation.candidates]
    report = Report(
        seconds=watch.seconds,
        tokens=reward.tokens,
        questions=reward.questions,
        updates=trainer.state.global_step,
        prompts=digest_of({p.prompt_id: ids for p, ids in zip(plan.prompts, groups, strict=True)}),
    )
    (folder / REPORT_FILE.format(NAME)).write_text(report.to_json())


if __name__ == "__main__":
    main(Plan.read(Path(sys.argv[1])), Path(sys.argv[2]))
