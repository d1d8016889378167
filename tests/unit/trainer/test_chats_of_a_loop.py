"""What two model families are asked, write and are trained on, thinking off and on: files that a reader checks by eye.

`▮` parts what is given from what the model writes, or stands where it would write. `⟦ ⟧` embrace the tokens that carry
loss; they are what a pack predicts, whose other tokens are only read.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import pytest

from dynalign_contract.config import Policy
from dynalign_contract.objective import parse_objective
from dynalign_contract.records import PromptRow, RolloutRow
from dynalign_contract.settings import JudgingSettings, TrainingSettings
from dynalign_trainer.generate.sampling import rollout_row
from dynalign_trainer.models.answer_start import QUESTION
from dynalign_trainer.models.chat_model import Sampling
from dynalign_trainer.models.chat_template import ChatTemplate
from dynalign_trainer.models.engine import Engine
from dynalign_trainer.models.engine_model import EngineModel
from dynalign_trainer.models.thoughts import Written, sample_chats
from dynalign_trainer.scoring.contexts import Candidate
from dynalign_trainer.scoring.pairwise import AnswerPair, PairwiseJudge
from dynalign_trainer.scoring.pointwise import PointwiseJudge
from dynalign_trainer.train.batch import build_batch
from dynalign_trainer.train.packed.layout import lay_out
from support.chat_templates import template_of
from support.goldens import Goldens
from support.template_engines import EOS, RecordingEngine, WritingEngine
from support.training_data import make_judgements

OBJECTIVE = parse_objective(
    """
name: short
version: "1"
preamble: Be brief.
aspects: [{id: brevity, title: Brevity, definition: No word too many.}]
judge:
  context: "$rubric\\n$open\\n$prompt\\n$close\\n$open\\n$candidate\\n$close"
  question: "How brief is it?"
compare:
  message: "$open\\n$prompt\\n$close\\n$open\\n$a\\n$close\\n$open\\n$b\\n$close\\nWhich is briefer?"
author: {message: "Ask $topic.", opening: "Why"}
facets: {topic: [anything]}
"""
)
WRITES = {
    ("qwen3", "Off"): "Air scatters blue light most.",
    ("qwen3", "On"): "<think>\nRayleigh.\n</think>\n\nAir scatters blue light most.",
    ("gpt-oss", "Off"): "Air scatters blue light most.",
    ("gpt-oss", "On"): "<|channel|>analysis<|message|>Rayleigh.<|end|><|start|>assistant<|channel|>final<|message|>"
    "Air scatters blue light most.",
}


ARGUMENTS = {"qwen3": {}, "gpt-oss": {"reasoning_effort": "low"}}
"""Of the template: with its channel of thoughts left out, gpt-oss is still told how much to think."""
CUT = 20
"""Tokens of the answer that is cut, after its thought."""
PROMPT: PromptRow = {
    "prompt_id": "p",
    "messages": [QUESTION],
    "source": "supplied",
    "facets": {},
    "critic_score": 0.0,
    "agents": {},
    "draft_id": "",
    "draft": "",
    "draft_score": 0.0,
}


def describe(family: str, thinking: str) -> str:
    chat = template_of(family, thinking=thinking, arguments=ARGUMENTS[family])
    writer, judged = WritingEngine(chat, WRITES[family, thinking]), RecordingEngine(chat)
    prompt = chat.encode([QUESTION])
    sampling = Sampling(temperature=1.0, max_tokens=200)
    written, cut = (
        sample_chats(cast(Engine, writer), [prompt], given, 100, policy=Policy(), seeds=[1], watch=None)[0][0]
        for given in (sampling, replace(sampling, max_tokens=CUT))
    )
    judge: Any = EngineModel(cast(Engine, judged), Policy())
    answer = written.sample.text
    PointwiseJudge(judge, OBJECTIVE, JudgingSettings(min_mass=0.0), seed=lambda *_: 1).score(
        [Candidate("p", [QUESTION], answer)]
    )
    pair = AnswerPair("p", [QUESTION], answer, "Because.")
    PairwiseJudge(judge, OBJECTIVE, min_mass=0.0, delimiter_seed=1).compare([pair], None)
    return "\n".join(
        [
            f"=== thinking {thinking}: prompt ▮ completion",
            f"{chat.tokenizer.decode(prompt)}▮{_text(chat, written.sample.token_ids)}",
            *_parts(written),
            f"=== thinking {thinking}: the pack that is trained on, of this answer and one that is cut",
            _pack(chat, [rollout_row(PROMPT, prompt, k, one, "base") for k, one in enumerate((written, cut))]),
            f"=== thinking {thinking}: the judge",
            f"{judged.asked[0]}▮",
            f"=== thinking {thinking}: the pairwise judge",
            f"{judged.asked[1]}▮",
        ]
    )


def _pack(chat: ChatTemplate, rollouts: list[RolloutRow]) -> str:
    """The pack's tokens; of every stretch the predicted tokens in brackets, which must be those that follow."""
    judgements = make_judgements(rollouts, rewards=[1.0, 0.0])
    batch = build_batch(rollouts, judgements, TrainingSettings(), policy="base", seed=0)
    pack = lay_out([row for row in batch.rows if not row["masked"]])
    prompt, *completions = pack.segments
    lines, targets = [_text(chat, pack.ids[: prompt.stop])], list(pack.targets)
    for segment in completions:
        count = segment.queries + 1  # the first token is predicted by the prompt's last
        loss, targets = targets[:count], targets[count:]
        assert loss[:-1] == list(pack.ids[segment.start : segment.stop])
        assert (segment.prefix_start, segment.prefix_stop) == (0, prompt.stop)
        lines.append(f"⟦{_text(chat, loss)}⟧")
    assert not targets
    return "\n".join(lines)


def _text(chat: ChatTemplate, ids: Sequence[int]) -> str:
    return str(chat.tokenizer.decode(ids)).replace(chr(EOS), chat.tokenizer.tokens["eos_token"])


def _parts(written: Written) -> list[str]:
    thought = [] if written.thought is None else [f"--- thought, {written.thought.tokens} tokens", written.thought.text]
    return [*thought, "--- answer", written.sample.text]


@pytest.mark.parametrize("family", ["qwen3", "gpt-oss"])
def test_a_loop_as_a_reader_sees_it(family: str, goldens: Goldens) -> None:
    text = "\n\n".join(describe(family, thinking) for thinking in ("Off", "On"))
    # thinking On: in the tokens, by itself, and in both answers of the pack; never before a judge
    assert text.count("Rayleigh") == 4
    goldens.check_text(f"loops/{family}.txt", text + "\n")
