"""First of three plain scripts: vLLM samples a group of answers for each prompt.

python -m benchmarks.peers.script_generate PLAN FOLDER
"""

import sys
from pathlib import Path

from transformers import AutoTokenizer

from benchmarks.peers.plan import GENERATE, Plan, Report, digest_of
from benchmarks.peers.samples import REPORT_FILE, Sample, write_samples
from benchmarks.peers.stopwatch import Stopwatch
from benchmarks.peers.vllm_engine import start_vllm


def main(plan: Plan, folder: Path) -> None:
    """Write answers with the log-probabilities of their tokens."""
    watch = Stopwatch()
    llm = start_vllm(plan)
    from vllm import SamplingParams  # noqa: PLC0415 - after the environment is set

    tokenizer = AutoTokenizer.from_pretrained(plan.model, local_files_only=True)
    chats = [
        tokenizer.apply_chat_template(p.messages, add_generation_prompt=True, tokenize=False) for p in plan.prompts
    ]
    prompts = [tokenizer.encode(chat, add_special_tokens=False) for chat in chats]
    sampling = SamplingParams(
        n=plan.generation.candidates,
        temperature=plan.generation.temperature,
        max_tokens=plan.generation.max_tokens,
        logprobs=0,
    )
    with watch.part(GENERATE):
        requests = llm.generate([{"prompt_token_ids": ids} for ids in prompts], sampling, use_tqdm=False)
    samples = [
        Sample(
            prompt_id=prompt.prompt_id,
            prompt_ids=ids,
            completion_ids=list(output.token_ids),
            logprobs=[at[token].logprob for token, at in zip(output.token_ids, output.logprobs, strict=True)],
            text=output.text,
        )
        for prompt, ids, request in zip(plan.prompts, prompts, requests, strict=True)
        for output in request.outputs
    ]
    write_samples(folder, samples)
    report = Report(
        seconds=watch.seconds,
        tokens=sum(len(sample.completion_ids) for sample in samples),
        prompts=digest_of({sample.prompt_id: sample.prompt_ids for sample in samples}),
    )
    (folder / REPORT_FILE.format(GENERATE)).write_text(report.to_json())


if __name__ == "__main__":
    main(Plan.read(Path(sys.argv[1])), Path(sys.argv[2]))
