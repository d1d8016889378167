"""The private members of TRL and accelerate that dynalign touches, as they were when they were checked."""

import hashlib
import inspect
import json
import math
from pathlib import Path

import pytest

from dynalign_contract.settings import AdvantageScale
from dynalign_trainer.train.advantages import EPSILON, group_advantages

pytestmark = pytest.mark.slow

CHECKED = Path(__file__).parents[1] / "data" / "private_members.json"
"""Name -> digest of the source. After a look at what changed, write the digests that the failing test prints."""


def test_private_members_are_those_that_were_checked() -> None:
    import accelerate
    import trl
    from accelerate.state import PartialState
    from trl import GRPOTrainer

    from dynalign_trainer.train.deepspeed.cpu import CHECKED_ACCELERATE
    from dynalign_trainer.train.trl.trainer import CHECKED_TRL

    assert (trl.__version__, accelerate.__version__) == (CHECKED_TRL, CHECKED_ACCELERATE)
    members = [
        GRPOTrainer._prepare_inputs,
        GRPOTrainer._compute_loss,
        GRPOTrainer._get_per_token_logps_and_entropies,
        PartialState._prepare_backend,
    ]
    found = {m.__qualname__: hashlib.sha256(inspect.getsource(m).encode()).hexdigest() for m in members}
    assert found == json.loads(CHECKED.read_text()), json.dumps(found, indent=2)


def test_advantages_are_those_of_trl() -> None:
    import torch
    from trl.trainer.utils import nanstd

    group = [0.1, math.nan, 0.7, 0.4]
    rewards = torch.tensor(group, dtype=torch.float64)
    trl = torch.nan_to_num((rewards - torch.nanmean(rewards)) / (nanstd(rewards) + EPSILON), nan=0.0)
    assert group_advantages(group, AdvantageScale.GROUP, batch_std=1.0) == pytest.approx(trl.tolist())


def test_the_patched_backend_is_gloo_for_deepspeed_and_accelerates_own_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from accelerate.state import PartialState
    from accelerate.utils import DistributedType

    from dynalign_trainer.train.deepspeed import cpu as cpu_deepspeed

    monkeypatch.setattr(PartialState, "_prepare_backend", PartialState._prepare_backend)
    monkeypatch.setattr(cpu_deepspeed, "count_gpus", lambda: 0)
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    monkeypatch.setenv("LOCAL_RANK", "0")
    cpu_deepspeed.enable()
    state = object.__new__(PartialState)
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    assert state._prepare_backend(False, False, None) == ("gloo", DistributedType.MULTI_CPU)
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "false")
    assert state._prepare_backend(False, False, None) == (None, DistributedType.NO)


def test_another_version_of_accelerate_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from dynalign_trainer.train.deepspeed import cpu as cpu_deepspeed

    monkeypatch.setattr(cpu_deepspeed, "count_gpus", lambda: 0)
    monkeypatch.setattr("accelerate.__version__", "9.9.9")
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    with pytest.raises(RuntimeError, match=r"checked with accelerate 1\.15\.0, not 9\.9\.9"):
        cpu_deepspeed.enable()
