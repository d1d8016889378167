"""`make version VERSION=X.Y.Z`: state the version everywhere and close the changelog's open section."""

import argparse
import sys
from datetime import UTC, datetime
from pathlib import Path

from release.changelog import close_section
from release.version import write_version


def main() -> None:
    """Change the files of the working tree; exit code 1 when the version or the changelog does not allow it."""
    parser = argparse.ArgumentParser(prog="make version", description=__doc__)
    parser.add_argument("version")
    version = parser.parse_args().version
    root = Path(__file__).parents[1]
    changelog = root / "CHANGELOG.md"
    try:
        closed = close_section(changelog.read_text(), version, datetime.now(UTC).date())
        write_version(root, version)
    except ValueError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(1)
    changelog.write_text(closed)
    sys.stdout.write(f"{version} is stated everywhere. Look at the difference, commit it, then: make release\n")


if __name__ == "__main__":
    main()
