"""What two model families are asked, write and are trained on, thinking off and on: files that a reader checks by eye.

`▮` parts what is given from what the model writes, or stands where it would write.
"""

from typing import Any, cast

import pytest

from dynalign_contract.config import Policy
from dynalign_contract.objective import parse_objective
from dynalign_contract.settings import JudgingSettings
from dynalign_trainer.models.answer_start import QUESTION
from dynalign_trainer.models.chat_model import Sampling
from dynalign_trainer.models.engine import Engine
from dynalign_trainer.models.engine_model import EngineModel
from dynalign_trainer.models.thoughts import Written, sample_chats
from dynalign_trainer.scoring.contexts import Candidate
from dynalign_trainer.scoring.pairwise import AnswerPair, PairwiseJudge
from dynalign_trainer.scoring.pointwise import PointwiseJudge
from support.chat_templates import template_of
from support.goldens import Goldens
from support.template_engines import RecordingEngine, WritingEngine

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


def describe(family: str, thinking: str) -> str:
    chat = template_of(family, thinking=thinking)
    writer, judged = WritingEngine(chat, WRITES[family, thinking]), RecordingEngine(chat)
    prompt = chat.encode([QUESTION])
    sampling = Sampling(temperature=1.0, max_tokens=200)
    ((written,),) = sample_chats(cast(Engine, writer), [prompt], sampling, 100, policy=Policy(), seeds=[1], watch=None)
    judge: Any = EngineModel(cast(Engine, judged), Policy())
    answer = written.sample.text
    PointwiseJudge(judge, OBJECTIVE, JudgingSettings(min_mass=0.0), seed=lambda *_: 1).score(
        [Candidate("p", [QUESTION], answer)]
    )
    pair = AnswerPair("p", [QUESTION], answer, "Because.")
    PairwiseJudge(judge, OBJECTIVE, min_mass=0.0, delimiter_seed=1).compare([pair], None)
    return "\n".join(
        [
            f"=== thinking {thinking}: prompt ▮ tokens that are trained on",
            f"{chat.tokenizer.decode(prompt)}▮{chat.tokenizer.decode(written.sample.token_ids[:-1])}▮ (end of sequence)",
            *_parts(written),
            f"=== thinking {thinking}: the judge",
            f"{judged.asked[0]}▮",
            f"=== thinking {thinking}: the pairwise judge",
            f"{judged.asked[1]}▮",
        ]
    )


def _parts(written: Written) -> list[str]:
    thought = [] if written.thought is None else [f"--- thought, {written.thought.tokens} tokens", written.thought.text]
    return [*thought, "--- answer", written.sample.text]


@pytest.mark.parametrize("family", ["qwen3", "gpt-oss"])
def test_a_loop_as_a_reader_sees_it(family: str, goldens: Goldens) -> None:
    text = "\n\n".join(describe(family, thinking) for thinking in ("Off", "On"))
    assert text.count("Rayleigh") == 2  # in the tokens, and by itself
    goldens.check_text(f"loops/{family}.txt", text + "\n")
