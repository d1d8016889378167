"""Prints the relative error of gradients that DeepSpeed sums in bfloat16 training: `gradient_precision.py ZERO_STAGE`.

64 micro-batches of a small network against float64; one process, on the CPU. Two figures: with dynalign's
configuration, and with the model's own precision for the sum (DeepSpeed's default).
"""

import math
import os
import sys
from typing import Any

import torch

from dynalign_trainer.train.deepspeed import cpu as cpu_deepspeed
from dynalign_trainer.train.deepspeed.configuration import deepspeed_config
from dynalign_trainer.train.policy.fp32_weights import gather_fp32, set_fp32

MICRO_BATCHES = 64


def network() -> Any:
    return torch.nn.Sequential(torch.nn.Linear(64, 256), torch.nn.GELU(), torch.nn.Linear(256, 1))


def relative_error(config: dict[str, Any]) -> float:
    import deepspeed

    torch.manual_seed(0)
    model, exact = network(), network().double()
    start = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    exact.load_state_dict({name: value.double() for name, value in start.items()})
    inputs = torch.randn(MICRO_BATCHES, 4, 64)
    engine, *_ = deepspeed.initialize(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=1.0),
        config=config
        | {
            "bf16": {"enabled": True},
            "train_micro_batch_size_per_gpu": 1,
            "gradient_accumulation_steps": 1,
            "gradient_clipping": 1e9,
        },
    )
    set_fp32(dict(engine.module.named_parameters()), start.items())
    for index, batch in enumerate(inputs):
        engine.set_gradient_accumulation_boundary(index == MICRO_BATCHES - 1)
        engine.backward((engine(batch.bfloat16()).float() ** 2).mean() / MICRO_BATCHES)
        engine.step()
        ((exact(batch.double()) ** 2).mean() / MICRO_BATCHES).backward()
    wanted = {name: parameter.grad for name, parameter in exact.named_parameters()}
    error = norm = 0.0
    for name, parameter in engine.module.named_parameters():
        gradient = start[name].double() - gather_fp32(parameter).double()  # one step of SGD with a learning rate of 1
        error += float((gradient - wanted[name]).square().sum())
        norm += float(wanted[name].square().sum())
    return math.sqrt(error / norm)


def main() -> None:
    os.environ.update(RANK="0", WORLD_SIZE="1", LOCAL_RANK="0", MASTER_ADDR="127.0.0.1", MASTER_PORT=sys.argv[2])
    cpu_deepspeed.use_gloo()
    import deepspeed

    deepspeed.init_distributed(dist_backend="gloo", verbose=False)
    ours = deepspeed_config(int(sys.argv[1]))
    default = {name: value for name, value in ours.items() if name not in ("data_types", "communication_data_type")}
    print(relative_error(ours), relative_error(default))  # noqa: T201 - what the test reads


if __name__ == "__main__":
    main()
