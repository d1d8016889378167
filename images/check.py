"""Ends the build of a trainer image with a sentence when a package is not the one that dynalign[EXTRA] asks for.

`check.py cpu|gpu`. With gpu, vLLM and torch come from the base image: this notices a base of another release.
"""

import sys
from importlib.metadata import PackageNotFoundError, requires, version

from packaging.requirements import Requirement


def problems(extra: str) -> list[str]:
    """One sentence for each requirement of dynalign[extra] that is not met."""
    found = []
    for requirement in map(Requirement, requires("dynalign") or ()):
        asked = [
            requirement.marker is None or requirement.marker.evaluate({"extra": e})
            for e in ("trainer", "bundled", extra)
        ]
        if requirement.name == "dynalign" or not any(asked):
            continue
        try:
            installed = version(requirement.name)
        except PackageNotFoundError:
            installed = "missing"
        if installed == "missing" or not requirement.specifier.contains(installed, prereleases=True):
            found.append(f"dynalign[{extra}] needs {requirement.name}{requirement.specifier}; here it is {installed}.")
    return found


if found := problems(sys.argv[1]):
    sys.exit("\n".join([*found, "Use a BASE_IMAGE with these versions."]))
