"""What can go wrong between dynalign and the place where its Jobs run."""

from dynalign_contract.exit_codes import ExitCode


class ClusterError(Exception):
    """The message is one paragraph: what, where, remedy. `exit_code` is what the command line ends with."""

    exit_code: int = 1


class ConflictError(ClusterError):
    """The run has changed since it was observed: observe and plan again."""


class GoneError(ClusterError):
    """The run has been deleted since it was observed."""


class LockedError(ClusterError):
    """Another process works on the same folder."""

    exit_code = ExitCode.BUSY


class WorkdirError(ClusterError):
    """The working folder is not one that this run can use."""

    exit_code = ExitCode.BAD_INPUT


class ChangedFieldError(ClusterError):
    """A field that must never change has changed since the run began."""

    exit_code = ExitCode.BAD_CONFIG


class UnsupportedJobError(ClusterError):
    """The Job asks for something that this cluster cannot do."""

    exit_code = ExitCode.BAD_CONFIG


class UnusableCacheError(ClusterError):
    """The folder for what is kept between runs cannot be written."""

    exit_code = ExitCode.BAD_CONFIG
