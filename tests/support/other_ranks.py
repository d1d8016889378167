"""Checkpoints of DeepSpeed written by some processes and read by others: `torchrun ... -m support.other_ranks FOLDER`.

The first launch on a folder takes two steps with each kind of optimiser state and saves it; a later one reads that and
prints, as JSON, the largest differences of its weights, and of those that the step after it gives, which moments and
numbers of steps decide.
"""

import json
import sys
from pathlib import Path
from typing import Any, Final

import torch

from dynalign_contract.settings import OptimizerOffload, TrainingMethod, TrainingSettings
from dynalign_trainer.train.deepspeed.configuration import deepspeed_config
from dynalign_trainer.train.deepspeed.state_names import add_model_files
from dynalign_trainer.train.packed.engine import load_checkpoint, save_checkpoint, start_distributed
from dynalign_trainer.train.policy.fp32_weights import gather_fp32

_STEPS: Final = 2
_EXPECTED: Final = "expected.pt"
_SUB_GROUP: Final = 400
"""Values of a group of ZeRO 3: small enough that other numbers of ranks make other groups."""


def cases() -> dict[str, tuple[dict[str, Any], bool]]:
    """DeepSpeed's configuration of each kind of optimiser state, and whether the model is bfloat16."""
    full = TrainingSettings(method=TrainingMethod.FULL)
    found = {}
    for zero, half, offload in [
        (0, False, "None"),
        (1, True, "None"),
        (2, False, "None"),
        (2, True, "CPU"),
        (3, True, "None"),
        (3, False, "CPU"),
    ]:
        settings = full.model_copy(update={"zero_stage": zero, "optimizer_offload": OptimizerOffload(offload)})
        config = deepspeed_config(settings)
        config["zero_optimization"] |= {"sub_group_size": _SUB_GROUP} if zero == 3 else {}
        found[f"ZeRO-{zero} {'bfloat16' if half else 'float32'} {offload}"] = (config, half)
    return found


def start(config: dict[str, Any], *, half: bool) -> Any:
    """A DeepSpeed engine around a small network whose sizes no number of ranks divides."""
    import deepspeed

    from dynalign_trainer.train.deepspeed.state import use_plain_checkpoints

    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Linear(11, 37), torch.nn.Tanh(), torch.nn.Linear(37, 13), torch.nn.Linear(13, 1)
    )
    fused = "offload_optimizer" in config["zero_optimization"] or None
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.0, fused=fused)
    once = {"train_micro_batch_size_per_gpu": 1, "gradient_accumulation_steps": 1, "bf16": {"enabled": half}}
    engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=config | once)
    use_plain_checkpoints(engine)
    return engine


def take_step(engine: Any, number: int, *, half: bool) -> None:
    """A step on inputs that all ranks have alike, so that it does not depend on their number."""
    torch.manual_seed(number)
    inputs = torch.randn(4, 11, device=engine.device, dtype=torch.bfloat16 if half else torch.float32)
    engine.backward((engine(inputs).float() ** 2).mean())
    engine.step()


def masters(engine: Any) -> dict[str, torch.Tensor]:
    """Float32 weights by name, whole, on every rank."""
    return {name: gather_fp32(p).detach().cpu().clone() for name, p in engine.module.named_parameters()}


def held_bytes(engine: Any) -> int:
    """Bytes of masters, moments and gradients in the machine's memory, as far as they lie there by themselves."""
    held = []
    for master, state in engine.basic_optimizer.state.items():
        held += [master, master.grad, *(value for value in state.values() if value.dim())]
    held.append(getattr(engine.optimizer, "grad_partitions_flat_buffer", None))
    return sum(tensor.numel() * tensor.element_size() for tensor in held if tensor is not None)


def farthest(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    """Largest difference of weights."""
    return max(float((a[name] - b[name]).abs().max()) for name in a)


def visit(folder: Path, config: dict[str, Any], *, half: bool) -> dict[str, float]:
    """Take steps and save, or read, compare and take the next step."""
    engine, checkpoint = start(config, half=half), folder / f"checkpoint-{_STEPS}"
    is_first = engine.global_rank == 0
    if not (folder / _EXPECTED).exists():
        for number in range(_STEPS):
            take_step(engine, number, half=half)
        save_checkpoint(engine, checkpoint)
        saved = masters(engine)
        take_step(engine, _STEPS, half=half)
        following = masters(engine)
        if is_first:
            torch.save([saved, following], folder / _EXPECTED)
        return {}
    if is_first:
        add_model_files(checkpoint, engine.dp_world_size)
    torch.distributed.barrier()
    load_checkpoint(engine, checkpoint)
    saved, following = torch.load(folder / _EXPECTED, weights_only=True)
    read = farthest(masters(engine), saved)
    take_step(engine, _STEPS, half=half)
    following_far = farthest(masters(engine), following)
    held = held_bytes(engine) / sum(value.numel() for value in saved.values())
    return {"read": read, "next": following_far, "moved": farthest(saved, following), "held": held}


def main() -> None:
    """Visit all cases and print what was found."""
    start_distributed()
    found = {}
    for name, (config, half) in cases().items():
        found[name] = visit(Path(sys.argv[1]) / name, config, half=half)
        torch.distributed.barrier()
    if torch.distributed.get_rank() == 0:
        print(json.dumps(found))  # noqa: T201 - what the test reads
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
