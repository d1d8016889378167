"""The models that may judge a stage's candidates."""

from dataclasses import dataclass

from dynalign_contract.config import BASE_POLICY, JudgeParams, Policy
from dynalign_trainer.models.chat_model import ChatModel
from dynalign_trainer.models.engine_model import EngineModel
from dynalign_trainer.models.opening import start_engine
from dynalign_trainer.runtime.context import StageContext


@dataclass(frozen=True)
class Judges:
    """The configured judge, and the base model that it is compared with and replaced by."""

    configured: ChatModel
    base: ChatModel

    @property
    def differ(self) -> bool:
        """Whether the configured judge is another model than the base model."""
        return not is_base(self.configured)

    @property
    def tokens_read(self) -> int:
        """Prompt tokens shown to the judges so far, those found in the prefix cache included."""
        return self.configured.usage.read + self.base.usage.read


def is_base(judge: ChatModel) -> bool:
    """Whether a judge is the base model."""
    return judge.version == BASE_POLICY


def open_judges(context: StageContext[JudgeParams]) -> Judges:
    """Start the engine with the configured judge's weights. Raises as `start_engine` does."""
    policy = context.params.judge
    engine = start_engine(context, [policy], only_reads=context.params.judging.only_reads)
    return Judges(configured=EngineModel(engine, policy), base=EngineModel(engine, Policy()))
