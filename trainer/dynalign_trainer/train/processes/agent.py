"""torchrun that ends with the stage that started it.

Called as `python -m dynalign_trainer.train.processes.agent STAGE_PID ARGUMENTS...`.

The elastic agent puts every worker into a session of its own, so killing a process group does not reach them; each one
in the chain stage, agent, worker therefore dies with the one before it.
"""

import os
import sys

from dynalign_trainer.runtime.importing import importing
from dynalign_trainer.runtime.lifetime import die_with_parent
from dynalign_trainer.train.processes.tracebacks import killed


def main() -> None:
    """Bind this process to the stage, then be torchrun; the workers learn whom to watch as their last argument."""
    die_with_parent(int(sys.argv[1]))
    with importing():
        from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
        from torch.distributed.run import main as torchrun

    try:
        torchrun([*sys.argv[2:], str(os.getpid())])
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        # The worker's own traceback has been written already; the agent's would bury it.
        sys.exit(failure.exitcode if failure.exitcode > 0 else killed(rank, failure.exitcode))


if __name__ == "__main__":
    main()
