"""Relative errors of gradients summed in bfloat16 training: `python -m lab.gradient_precision ZERO_STAGE [CPU]`.

64 micro-batches of a small network against float64, in one process. Two figures: with dynalign's configuration, and
with the model's own precision for the sum (DeepSpeed's default).
"""

import math
import sys
from dataclasses import dataclass
from typing import Any, Final

from dynalign_contract.settings import OptimizerOffload, TrainingSettings

MICRO_BATCHES: Final = 64


@dataclass(frozen=True)
class GradientErrors:
    """Errors relative to the gradient's norm."""

    ours: float
    default: float

    @property
    def faults(self) -> tuple[str, ...]:
        """What is wrong with them."""
        found = []
        if not self.ours < 0.75 * self.default:
            found.append(f"the error {self.ours:.4f} is hardly below {self.default:.4f}, that of DeepSpeed's default")
        if not self.ours < 0.006:
            found.append(f"the error {self.ours:.4f} is more than the rounding of the bfloat16 pass itself, 0.006")
        return tuple(found)


def measure_errors(zero_stage: int, offload: OptimizerOffload = OptimizerOffload.NONE) -> GradientErrors:
    """Measure them on the device that the stages would train on; processes have met before."""
    from dynalign_trainer.train.deepspeed.configuration import deepspeed_config

    ours = deepspeed_config(TrainingSettings(zero_stage=zero_stage, optimizer_offload=offload))
    default = {name: value for name, value in ours.items() if name not in ("data_types", "communication_data_type")}
    return GradientErrors(_relative_error(ours), _relative_error(default))


def _network() -> Any:
    import torch

    return torch.nn.Sequential(torch.nn.Linear(64, 256), torch.nn.GELU(), torch.nn.Linear(256, 1))


def _relative_error(config: dict[str, Any]) -> float:
    import deepspeed
    import torch

    from dynalign_trainer.train.policy.fp32_weights import gather_fp32, set_fp32

    torch.manual_seed(0)
    model, exact = _network(), _network().double()
    start = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    exact.load_state_dict({name: value.double() for name, value in start.items()})
    inputs = torch.randn(MICRO_BATCHES, 4, 64)
    once: dict[str, Any] = {"train_micro_batch_size_per_gpu": 1, "gradient_accumulation_steps": 1}
    engine, *_ = deepspeed.initialize(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=1.0),
        config=config | once | {"bf16": {"enabled": True}, "gradient_clipping": 1e9},
    )
    set_fp32(dict(engine.module.named_parameters()), start.items())
    for index, batch in enumerate(inputs):
        engine.set_gradient_accumulation_boundary(index == MICRO_BATCHES - 1)
        engine.backward((engine(batch.bfloat16().to(engine.device)).float() ** 2).mean() / MICRO_BATCHES)
        engine.step()
        ((exact(batch.double()) ** 2).mean() / MICRO_BATCHES).backward()
    error = norm = 0.0
    wanted = dict(exact.named_parameters())
    for name, parameter in engine.module.named_parameters():
        # One step of SGD with a learning rate of 1.
        gradient = start[name].double() - gather_fp32(parameter).detach().cpu().double()
        right = wanted[name].grad
        error += float((gradient - right).square().sum())
        norm += float(right.square().sum())
    engine.destroy()
    return math.sqrt(error / norm)


def main() -> None:
    """Print both errors."""
    from dynalign_trainer.train.packed.engine import start_distributed
    from lab.training_jobs import be_the_only_rank

    be_the_only_rank()
    start_distributed()
    errors = measure_errors(int(sys.argv[1]), *map(OptimizerOffload, sys.argv[2:]))
    sys.stdout.write(f"{errors.ours} {errors.default}\n")


if __name__ == "__main__":
    main()
