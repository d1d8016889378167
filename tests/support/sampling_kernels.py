"""Runs the Triton kernels of vLLM's second model runner on the CPU, by Triton's interpreter, against PyTorch.

They have no other way to run without a GPU. The modules that have them are loaded by themselves, for vLLM's package
leaves Triton alone where it finds no driver. Values are float32: the interpreter compares bfloat16 wrongly. Checked
against vLLM 0.31 and Triton 3.7. Prints what was found as JSON; Triton has to be on the PYTHONPATH.
"""

import importlib
import importlib.util
import json
import os
import sys
import types
from pathlib import Path
from typing import Any

import torch

ROWS, VOCABULARY = 6, 5000
DIGITS = tuple(range(15, 25))
"""Stand for the tokens of a scale, whose log-probabilities a judge's verdict is made of."""
DRAWS, FEW, CHOICES = 800, 40, 16


def load_kernels() -> tuple[Any, Any]:
    """The modules `logprob` and `gumbel`, with Triton as it is and empty classes for what the kernels do not use."""
    triton, language = importlib.import_module("triton"), importlib.import_module("triton.language")
    spec = importlib.util.find_spec("vllm")
    assert spec is not None
    assert spec.origin is not None
    folder = Path(spec.origin).parent / "v1" / "worker" / "gpu" / "sample"

    def stand_in(name: str, **attributes: object) -> None:
        sys.modules[name] = types.ModuleType(name)
        vars(sys.modules[name]).update(attributes)

    stand_in("vllm")
    stand_in("vllm.sampling_params", MAX_LOGPROB_TOKEN_IDS=128, SamplingParams=object)
    stand_in("vllm.triton_utils", tl=language, triton=triton)
    stand_in("vllm.v1")
    stand_in("vllm.v1.outputs", LogprobsTensors=types.SimpleNamespace)
    stand_in("vllm.v1.worker")
    stand_in("vllm.v1.worker.gpu")
    stand_in("vllm.v1.worker.gpu.buffer_utils", StagedWriteTensor=object, UvaBackedTensor=object)

    def load(name: str) -> Any:
        found = importlib.util.spec_from_file_location(name, folder / f"{name}.py")
        assert found is not None
        assert found.loader is not None
        module = importlib.util.module_from_spec(found)
        found.loader.exec_module(module)
        return module

    return load("logprob"), load("gumbel")


def score(logprob: Any) -> dict[str, Any]:
    """Log-probabilities and ranks of sampled tokens, and log-probabilities of chosen ones beside them."""
    torch.manual_seed(0)
    logits = torch.randn(ROWS, VOCABULARY) * 3
    wanted = torch.log_softmax(logits, -1)
    sampled = torch.randint(VOCABULARY, (ROWS,))
    sampled[0] = DIGITS[2]  # a sampled token that is also among the chosen ones
    plain = logprob.compute_topk_scores(logits, 0, sampled)
    mine = wanted.gather(1, sampled[:, None])
    token_ids = torch.zeros(ROWS, 128, dtype=torch.int32)
    token_ids[:, : len(DIGITS)] = torch.tensor(DIGITS, dtype=torch.int32)
    counts = torch.full((ROWS,), len(DIGITS), dtype=torch.int32)
    counts[-1] = 0  # a request that chose none
    chosen = logprob.compute_topk_scores(
        logits,
        0,
        sampled,
        logprob_token_ids_state=types.SimpleNamespace(
            token_ids=types.SimpleNamespace(gpu=token_ids), num_token_ids=types.SimpleNamespace(gpu=counts)
        ),
        expanded_idx_mapping=torch.arange(ROWS, dtype=torch.int32),
        max_per_req_token_ids=len(DIGITS),
    )
    asked = slice(0, ROWS - 1)
    return {
        "sampled_error": float((plain.logprobs - mine).abs().max()),
        "ranks_agree": bool((plain.selected_token_ranks == (wanted >= mine).sum(1)).all()),
        "chosen_ids": chosen.logprob_token_ids[0].tolist(),
        "sampled_first": bool((chosen.logprob_token_ids[:, 0] == sampled).all()),
        "chosen_error": float((chosen.logprobs[asked, 1:] - wanted[asked][:, list(DIGITS)]).abs().max()),
        "beside_error": float((chosen.logprobs[:, :1] - mine).abs().max()),
        "unasked_are_absent": bool(torch.isneginf(chosen.logprobs[-1, 1:]).all()),
    }


def draw(gumbel: Any) -> dict[str, Any]:
    """Samples of one distribution by many seeds, again, at another temperature, and greedy ones."""
    torch.manual_seed(1)
    row = torch.randn(CHOICES) * 1.5

    def sample(temperature: float, *, draws: int = FEW, first_seed: int = 1000) -> torch.Tensor:
        found: torch.Tensor = gumbel.gumbel_sample(
            row.repeat(draws, 1),
            torch.arange(draws, dtype=torch.int32),
            torch.full((draws,), temperature),
            torch.arange(first_seed, first_seed + draws, dtype=torch.int64),
            torch.zeros(draws, dtype=torch.int64),
            apply_temperature=True,
            is_drafting=False,
            use_fp64=False,
        )
        return found

    def chi_squared(tokens: torch.Tensor, temperature: float) -> float:
        wanted = torch.softmax(row / temperature, -1) * DRAWS
        found = torch.bincount(tokens, minlength=CHOICES)
        return float(((found - wanted).square() / wanted).sum())

    plain, hot = sample(1.0, draws=DRAWS), sample(2.0, draws=DRAWS)
    return {
        "chi_squared": chi_squared(plain, 1.0),
        "chi_squared_when_hot": chi_squared(hot, 2.0),
        "same_seeds_same_tokens": bool((plain[:FEW] == sample(1.0)).all()),
        "other_seeds_other_tokens": bool((plain[:FEW] != sample(1.0, first_seed=50_000)).any()),
        "greedy": bool((sample(0.0) == row.argmax()).all()),
    }


def main() -> None:
    os.environ["TRITON_INTERPRET"] = "1"
    logprob, gumbel = load_kernels()
    print(json.dumps({**score(logprob), **draw(gumbel)}))  # noqa: T201 - what the test reads


if __name__ == "__main__":
    main()
