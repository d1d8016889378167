"""What training can and cannot use."""

import json
from typing import Final

from dynalign_contract.settings import (
    AUTO_TARGETS,
    DType,
    KlReference,
    LoraSettings,
    Noise,
    OptimizerOffload,
    TrainingBackend,
    TrainingMethod,
    TrainingSettings,
)
from dynalign_operator.api.rules.rule import Rule

_NOISE_FLOOR: Final = TrainingSettings().noise_floor
_STORED_MICRO_BATCH: Final = 4
_STORED_TOKENS: Final = 4096
_STORED_LORA: Final = LoraSettings(
    rank=16,
    alpha=32,
    dropout=0.0,
    target_modules=("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
)
"""What API servers wrote into every run while these settings had defaults there. Stored runs stay valid whatever the
defaults become, so these values never change."""


def _stored_lora_in_cel() -> str:
    """`training.lora in (None, _STORED_LORA)` in CEL, over `spec.training`."""
    lora = _STORED_LORA
    return (
        f"!has(self.lora) || (self.lora.rank == {lora.rank} && self.lora.alpha == {lora.alpha}"
        f" && double(self.lora.dropout) == {lora.dropout}"
        f" && self.lora.targetModules == {json.dumps(list(lora.target_modules))})"
    )


TRAINING_RULES: Final = (
    Rule(
        at="spec",
        field="training.noiseFloor",
        cel=f"self.judging.votes > 1 || self.judging.noise == 'Disagreement' || "
        "self.judging.judges.exists(x, has(x.votes) && x.votes > 1) || "
        f"self.training.noiseFloor == 0.0 || self.training.noiseFloor == {_NOISE_FLOOR}",
        message="has an effect only when judging.votes is more than 1; raise votes, or remove noiseFloor",
        holds=lambda s: (
            s.judging.votes > 1
            or s.judging.noise is Noise.DISAGREEMENT
            or any((judge.votes or 1) > 1 for judge in s.judging.judges)
            or s.training.noise_floor in (0, _NOISE_FLOOR)
        ),
    ),
    Rule(
        at="spec",
        field="training.zeroStage",
        cel="!(self.training.method == 'Full' && self.training.zeroStage == 0 && self.engine.dtype == 'BFloat16')",
        message=(
            "is 0, with which method: Full would round every step to bfloat16; write 1 or more, or engine.dtype: "
            "Float32"
        ),
        holds=lambda s: (
            not (
                s.training.method is TrainingMethod.FULL
                and s.training.zero_stage == 0
                and s.engine.dtype is DType.BFLOAT16
            )
        ),
    ),
    Rule(
        at="spec.training",
        field="optimizerOffload",
        cel="!has(self.optimizerOffload) || self.optimizerOffload == 'None' || "
        "(self.method == 'Full' && self.zeroStage >= 2)",
        message="is CPU, which is for method: Full with zeroStage 2 or 3, for an adapter's states are small; write "
        "these, or remove optimizerOffload",
        holds=lambda training: training.optimizer_offload is OptimizerOffload.NONE or training.may_offload,
    ),
    Rule(
        at="spec.training",
        field="lora",
        cel=f"self.method == 'LoRA' || {_stored_lora_in_cel()}",
        message="has an effect with method: LoRA only; set method to LoRA, or remove lora",
        holds=lambda training: training.method is TrainingMethod.LORA or training.lora in (None, _STORED_LORA),
    ),
    Rule(
        at="spec.training",
        field="kl.reference",
        cel=(
            "!(self.method == 'Full' && self.zeroStage == 3 && double(self.kl.coefficient) > 0.0"
            " && self.kl.reference == 'Base')"
        ),
        message=(
            "is Base, for which method: Full needs the base model whole in every process, and zeroStage is 3; write "
            "IterationStart, or a lower zeroStage"
        ),
        holds=lambda training: (
            not (
                training.method is TrainingMethod.FULL
                and training.zero_stage == 3
                and training.kl.coefficient > 0
                and training.kl.reference is KlReference.BASE
            )
        ),
    ),
    Rule(
        at="spec.training.lora",
        field="targetModules",
        cel="self.targetModules.all(x, self.targetModules.exists_one(y, x == y))",
        message="names a module twice; name each once",
        holds=lambda lora: len(set(lora.target_modules)) == len(lora.target_modules),
    ),
    Rule(
        at="spec.training.lora",
        field="targetModules",
        cel=f"!('{AUTO_TARGETS}' in self.targetModules) || size(self.targetModules) == 1",
        message=f"names modules beside Auto, which chooses them; write [{AUTO_TARGETS}], or the modules alone",
        holds=lambda lora: not lora.is_auto or len(lora.target_modules) == 1,
    ),
    Rule(
        at="spec.training",
        field="microBatch",
        cel=f"self.backend != 'Packed' || !has(self.microBatch) || self.microBatch == {_STORED_MICRO_BATCH}",
        message="has no effect with backend: Packed; set backend to TRL or Auto, or write tokensPerMicroBatch instead",
        holds=lambda training: (
            training.backend is not TrainingBackend.PACKED or training.micro_batch in (None, _STORED_MICRO_BATCH)
        ),
    ),
    Rule(
        at="spec.training",
        field="tokensPerMicroBatch",
        cel=f"self.backend != 'TRL' || !has(self.tokensPerMicroBatch) || self.tokensPerMicroBatch == {_STORED_TOKENS}",
        message="has no effect with backend: TRL; set backend to Packed or Auto, or write microBatch instead",
        holds=lambda training: (
            training.backend is not TrainingBackend.TRL or training.tokens_per_micro_batch in (None, _STORED_TOKENS)
        ),
    ),
    Rule(
        at="spec.training.clip",
        field="dual",
        cel="!has(self.dual) || double(self.dual) > 1.0 + double(self.high)",
        message="must be more than 1 + high, where the ratio is clipped already; raise dual, or remove it",
        holds=lambda clip: clip.dual is None or clip.dual > 1 + clip.high,
    ),
    Rule(
        at="spec.training.ratioBand",
        field="",
        cel="self.low < self.high",
        message="has low equal to high, which would reject every row; lower low or raise high",
        holds=lambda band: band.low < band.high,
    ),
)
