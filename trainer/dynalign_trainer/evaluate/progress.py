"""How far an evaluation is, over all that it does with the engine."""

from dynalign_contract.config import EvaluateParams
from dynalign_trainer.runtime.context import StageContext
from dynalign_trainer.runtime.progress import Watch, watch_progress


class Progress:
    """Units of work: an answer, a comparison, or an item of a task."""

    def __init__(self, context: StageContext[EvaluateParams], total: int) -> None:
        self._context = context
        self._total = total
        self._done = 0

    def begin(self, units: int) -> Watch:
        """A Watch over the next so many units. Raises TerminatedError once SIGTERM has arrived."""
        self._context.check_stop()
        watch = watch_progress(self._context, done=self._done, total=self._total, share=units)
        self._done += units
        return watch
