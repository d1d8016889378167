"""Runs of dynalign from Python: `from dynalign import Run`."""

from dynalign.errors import RunFailedError
from dynalign.run import Run
from dynalign.samples import Sample
from dynalign_operator.clusters.errors import ClusterError
from dynalign_operator.runfile.run_file import RunFileError

__all__ = ["ClusterError", "Run", "RunFailedError", "RunFileError", "Sample"]
