"""Values that verifiers give the answers to held-out prompts: the policy's, and how they differ from the base model's.

Pure. Verifiers are those of the rewards (docs/rewards.md); here their weights do not matter.
"""

import math
from collections.abc import Sequence

from dynalign_contract.config import EvaluateParams
from dynalign_contract.metrics import EvaluateMetrics, MetricValues
from dynalign_contract.records import AnswerRow, PromptRow, answer_length
from dynalign_trainer.evaluate.bootstrap import mean_estimate
from dynalign_trainer.scoring.scores import mean_of
from dynalign_trainer.verifiers.answer import Answer
from dynalign_trainer.verifiers.verifier import Verifier, verify


def with_values(
    verifiers: Sequence[Verifier], prompts: Sequence[PromptRow], rows: Sequence[AnswerRow]
) -> list[AnswerRow]:
    """ANSWER rows, one a prompt, with the column `verifiers`; as they are in a run without verifiers."""
    if not verifiers or not rows:
        return list(rows)
    answers = [
        Answer(
            row["text"],
            answer_length(row),
            prompt.get("columns", {}),
            prompt_id=prompt["prompt_id"],
            messages=prompt["messages"],
        )
        for prompt, row in zip(prompts, rows, strict=True)
    ]
    return [{**row, "verifiers": values} for row, values in zip(rows, verify(verifiers, answers), strict=True)]


def verifier_metrics(
    policy: Sequence[AnswerRow], base: Sequence[AnswerRow], *, confidence: float, resamples: int, seed: int
) -> MetricValues[EvaluateParams]:
    """Mean value of each verifier over the policy's answers, and by how much it exceeds the base model's.

    `policy` and `base` are ANSWER rows to the same prompts in the same order. Undecided answers are left out of the
    mean, and prompts with one of either policy out of the difference.
    """
    found: MetricValues[EvaluateParams] = {}
    for name in policy[0].get("verifiers", {}) if policy else ():
        own, other = ([row["verifiers"][name] for row in rows] for rows in (policy, base))
        differences = [value - base_value for value, base_value in zip(own, other, strict=True)]
        change = mean_estimate(differences, confidence=confidence, resamples=resamples, seed=seed)
        found |= {
            EvaluateMetrics.verifier_value.of(name): mean_of(value for value in own if not math.isnan(value)),
            **EvaluateMetrics.verifier_delta.split(name, change),
        }
    return found
