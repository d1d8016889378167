"""`python -m dynalign_trainer.host`: import once what takes stages seconds to import, then fork off one after another.

What CUDA has initialised does not survive a fork: where there is a GPU, every stage starts as a program of its own. A
line on standard input is a HostOrder, a line on standard output a HostAnswer; the host ends when its input does.
"""

import os
import signal
import sys
from typing import TextIO

from dynalign_contract.host import HostAnswer, HostOrder
from dynalign_trainer.main import main as run_stage
from dynalign_trainer.models.engine_start import prepare_environment
from dynalign_trainer.runtime.machine import count_gpus


def main() -> None:
    """Serve orders until standard input ends, or until SIGTERM, which goes on to the running stage."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    is_loaded = _preload()
    for line in sys.stdin:
        if not _serve(HostOrder.model_validate_json(line), answers, is_loaded=is_loaded):
            return


def _preload() -> bool:
    """Import what stages import; False where a stage may not be forked, and nothing was imported for it."""
    prepare_environment()
    if count_gpus():
        return False
    import transformers  # noqa: F401
    from vllm import LLM, SamplingParams  # noqa: F401

    import dynalign_trainer.evaluate.stage
    import dynalign_trainer.export.stage
    import dynalign_trainer.generate.stage
    import dynalign_trainer.judge.stage
    import dynalign_trainer.prompts.stage  # noqa: F401

    return True


def _serve(order: HostOrder, answers: TextIO, *, is_loaded: bool) -> bool:
    """Run one stage to its end; False when SIGTERM has come meanwhile."""
    stopped = False
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    pid = os.fork()
    if pid == 0:
        answers.close()  # the host's end shows by the end of this pipe
        _become_stage(order, is_loaded=is_loaded)

    def stop(_signal: int, _frame: object) -> None:
        nonlocal stopped
        stopped = True
        os.kill(pid, signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, stop)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    _tell(answers, HostAnswer(pid=pid))
    _, status = os.waitpid(pid, 0)
    signal.signal(signal.SIGTERM, before)
    _tell(answers, HostAnswer(pid=pid, returncode=os.waitstatus_to_exitcode(status)))
    return not stopped


def _become_stage(order: HostOrder, *, is_loaded: bool) -> None:
    """In the child: a session, an environment and an output of its own, then the stage; never returns."""
    os.setsid()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    os.chdir(order.folder)
    nothing = os.open(os.devnull, os.O_RDONLY)
    log = os.open(order.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    for target, source in enumerate((nothing, log, log)):
        os.dup2(source, target)
    if not is_loaded:
        program = [sys.executable, "-m", "dynalign_trainer.main", *order.arguments]
        os.execve(sys.executable, program, order.environment)  # noqa: S606 - what the host was told to run
    os.environ.clear()
    os.environ.update(order.environment)
    run_stage(order.arguments)
    raise AssertionError("a stage ends its process")


def _tell(answers: TextIO, answer: HostAnswer) -> None:
    try:
        answers.write(f"{answer.to_json()}\n")
        answers.flush()
    except BrokenPipeError:
        return  # dynalign was killed; the next one finds this process by its environment


if __name__ == "__main__":
    main()
