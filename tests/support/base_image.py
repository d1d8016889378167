"""The image of tests that need no more of a pod than Python."""

import os
import subprocess
from typing import Final

from lab.cluster import ROOT

_BASE: Final = "localhost/debian-python:test"
IMAGE: Final = os.environ.get("DYNALIGN_TEST_IMAGE", _BASE)


def give_base_image() -> None:
    """Build the image for the cluster and load it there, unless another one is named."""
    if IMAGE == _BASE:
        for arguments in (["base"], ["load", "debian-python"]):
            subprocess.run([ROOT / "tests/cluster/images.sh", *arguments], check=True, timeout=600)
