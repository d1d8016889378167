"""Part of `make check`: the version is the same everywhere, and the changelog has its format."""

import sys
from pathlib import Path

from release.changelog import find_faults
from release.version import find_disagreements


def main() -> int:
    """Print what is wrong, a sentence each; returns the exit code."""
    root = Path(__file__).parents[1]
    changelog = (root / "CHANGELOG.md").read_text()
    wrong = [*find_disagreements(root), *(f"CHANGELOG.md: {fault}" for fault in find_faults(changelog))]
    sys.stderr.writelines(f"{sentence}\n" for sentence in wrong)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
