"""Errors of a stage. Each knows the exit code that the planner will see; each message says what to do."""

from dynalign_contract.exit_codes import ExitCode


class StageError(Exception):
    """A stage cannot go on. The message is one paragraph for the person who reads it: what, where, remedy."""

    exit_code: int = 1
    reason: str = "StageError"
    place: str = ""
    """Where an unforeseen error came from; empty for errors that the stage knows."""


class BadConfigError(StageError):
    """The configuration is wrong: the message names the field."""

    exit_code = ExitCode.BAD_CONFIG
    reason = "BadConfig"


class BadInputError(StageError):
    """An input is missing, unreadable or empty: the message names the file."""

    exit_code = ExitCode.BAD_INPUT
    reason = "BadInput"


class CorruptArtifactError(BadInputError):
    """An artifact does not have the digest that its manifest, or the planner, says it has."""

    reason = "CorruptArtifact"


class UnfitError(StageError):
    """A gate refused: nothing is broken, but going on would train on a judge or a model that is not fit."""

    exit_code = ExitCode.UNFIT
    reason = "Unfit"


class VolumeFullError(StageError):
    """The volume has no space left; retriable, because a person can make space."""

    reason = "VolumeFull"


class DeviceBusyError(StageError):
    """Another process holds the GPU's memory; retriable, because it may let go of it."""

    reason = "DeviceBusy"


class EngineLostError(StageError):
    """A process that runs one of the stage's engines has ended; retriable, and finished parts are kept."""

    reason = "EngineLost"


class StorageError(StageError):
    """The storage failed for the moment; retriable."""

    reason = "StorageFailed"


class MemoryFullError(StageError):
    """The memory, of a GPU or of the machine, does not hold what the configuration asks for: a retry cannot help."""

    exit_code = ExitCode.BAD_CONFIG
    reason = "OutOfMemory"


class RepeatedError(StageError):
    """An unforeseen error came a second time from the same place, with the same inputs."""

    exit_code = ExitCode.REPEATED
    reason = "RepeatedError"


class TerminatedError(StageError):
    """SIGTERM arrived and the stage has stopped at a safe place."""

    exit_code = ExitCode.TERMINATED
    reason = "Terminated"


class TrainingFailedError(StageError):
    """The training processes ended without finishing; retriable, and the next attempt resumes from a checkpoint."""

    reason = "TrainingFailed"
