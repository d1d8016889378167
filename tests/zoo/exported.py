"""An exported model in transformers, held against the answers that vLLM wrote with the last policy."""

from dataclasses import dataclass
from typing import Any, Final

from dynalign_contract.config import policy_version
from dynalign_trainer.models.chat_template import ChatTemplate
from dynalign_trainer.models.folder import load_tokenizer
from zoo.loop import ITERATIONS, Loop

AGREES: Final = 1e-4
"""Nats; what the order of computation in float32 makes."""
_ROUNDED_AGREEMENT: Final = 0.9
"""Share of greedy tokens that survive an export in bfloat16: where two tokens are close, rounding may exchange them."""


@dataclass(frozen=True)
class ExportCheck:
    """How the exported model, and the base model, continue the prompts that the last policy answered greedily."""

    agreement: float
    """Share of the answers' tokens that are the likeliest of the exported model, within `AGREES` nats."""
    is_rounded: bool
    """Whether the weights are stored in fewer digits than they were trained in."""
    distance: float
    """Mean absolute difference of the two models' log-probabilities of the answers' tokens, nats."""
    tokens: int

    @property
    def answers_as_trained(self) -> bool:
        """Whether the exported model answers as the last policy did, as far as its number format can."""
        return self.tokens > 0 and self.agreement >= (_ROUNDED_AGREEMENT if self.is_rounded else 1)


def check_export(loop: Loop) -> ExportCheck:
    """Compute the answers' tokens with both models, teacher-forced."""
    import torch
    from transformers import AutoConfig

    chat = ChatTemplate(load_tokenizer(loop.layout.export), loop.chat)
    exported, base = (_load(folder) for folder in (loop.layout.export, loop.layout.model))
    gaps, distances = [], []
    for row in loop.answers:
        if row["policy"] != policy_version(ITERATIONS - 1):
            continue
        prompt, answer = chat.encode(loop.held_out[row["prompt_id"]]["messages"]), row["completion_ids"]
        ours, theirs = (_logprobs(model, prompt, answer) for model in (exported, base))
        tokens = torch.tensor(answer)[:, None]
        gaps.append(ours.amax(-1) - ours.gather(1, tokens)[:, 0])
        distances.append((ours - theirs).gather(1, tokens)[:, 0].abs())
    gap, distance = torch.cat(gaps), torch.cat(distances)
    return ExportCheck(
        agreement=float((gap < AGREES).float().mean()),
        is_rounded=AutoConfig.from_pretrained(loop.layout.export).dtype != torch.float32,
        distance=float(distance.mean()),
        tokens=len(gap),
    )


def _load(folder: Any) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def _logprobs(model: Any, prompt: list[int], answer: list[int]) -> Any:
    """Log-probabilities of every token at the places of the answer; shape (answer, vocabulary)."""
    import torch

    with torch.no_grad():
        logits = model(torch.tensor([[*prompt, *answer]])).logits[0, len(prompt) - 1 : -1]
    return logits.log_softmax(-1)
