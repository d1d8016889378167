"""A pod that waits for the prompts of its rollout: it answers what the pod that writes them asks."""

import logging

from dynalign_contract.config import Policy, PromptsParams
from dynalign_contract.errors import BadInputError
from dynalign_trainer.models.engine import Engine
from dynalign_trainer.models.engine_model import EngineModel
from dynalign_trainer.models.opening import start_engine
from dynalign_trainer.prompts.exchange import Exchange, open_exchange
from dynalign_trainer.prompts.shared_model import answer
from dynalign_trainer.runtime.context import StageContext

log = logging.getLogger("dynalign.prompts")


class PromptsHelper:
    """Answers parts of batches with the engine that this pod needs for the rollout's next stage anyway."""

    def __init__(self, context: StageContext[PromptsParams], engine: Engine, exchange: Exchange) -> None:
        self._context, self._exchange = context, exchange
        self._models = {policy.version: EngineModel(engine, policy) for policy in (Policy(), context.params.policy)}

    def help(self) -> bool:
        """Answer a part of the batch that is offered; False if there is none that nobody has begun.

        What cannot be asked is left to the pod that writes the prompts, whose error names the cause.
        """
        batch = self._exchange.find()
        if batch is None or batch.policy not in self._models:
            return False
        for part in self._exchange.take(batch, 1):
            try:
                answers = answer(self._models[batch.policy], batch.select([part]), self._watch)
            except BadInputError as error:
                log.warning("part %d of %d is left to the pod that writes the prompts: %s", part, batch.parts, error)
                return False
            self._exchange.answer(batch, part, answers)
            return True
        return False

    def close(self) -> None:
        """Remove what the pods have passed on, once the prompts are there."""
        self._exchange.close()

    def _watch(self, _done: int, _total: int, rate: float) -> None:
        self._context.telemetry.rate(rate)
        self._context.check_stop()


def open_helper(context: StageContext[PromptsParams]) -> PromptsHelper:
    """Start the engine, and be ready to help."""
    return PromptsHelper(context, start_engine(context, [context.params.policy]), open_exchange(context))
