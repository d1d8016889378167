"""Second of three plain scripts: vLLM answers the judge's questions about the first one's answers.

python -m benchmarks.peers.script_judge PLAN FOLDER
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.peers.plan import JUDGE, Plan, Report
from benchmarks.peers.questions import judge_candidates
from benchmarks.peers.samples import REPORT_FILE, read_samples, write_rewards
from benchmarks.peers.stopwatch import Stopwatch
from benchmarks.peers.vllm_engine import start_vllm
from dynalign_trainer.scoring.contexts import Candidate


def main(plan: Plan, folder: Path) -> None:
    """Write a reward for each answer."""
    watch = Stopwatch()
    llm = start_vllm(plan)
    from vllm import SamplingParams  # noqa: PLC0415 - after the environment is set

    def answer(questions: Sequence[Sequence[int]], tokens: Sequence[int]) -> list[list[float]]:
        params = SamplingParams(temperature=1.0, max_tokens=1, logprob_token_ids=list(tokens), detokenize=False)
        prompts = [{"prompt_token_ids": list(question)} for question in questions]
        found = [request.outputs[0].logprobs[0] for request in llm.generate(prompts, params, use_tqdm=False)]
        return [[logprobs[token].logprob for token in tokens] for logprobs in found]

    messages = {prompt.prompt_id: prompt.messages for prompt in plan.prompts}
    candidates = [Candidate(one.prompt_id, messages[one.prompt_id], one.text) for one in read_samples(folder)]
    with watch.part(JUDGE):
        judged = judge_candidates(plan, llm.get_tokenizer(), candidates, answer)
    write_rewards(folder, judged.rewards)
    report = Report(seconds=watch.seconds, questions=len(judged.questions))
    (folder / REPORT_FILE.format(JUDGE)).write_text(report.to_json())


if __name__ == "__main__":
    main(Plan.read(Path(sys.argv[1])), Path(sys.argv[2]))
