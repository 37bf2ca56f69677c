"""Prints a version's section of CHANGELOG.md, for its release page.

    python tools/release_notes.py VERSION

Exit code 1 if the section is missing or empty.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

CHANGELOG = Path(__file__).resolve().parents[1] / "CHANGELOG.md"


def release_notes(changelog: str, version: str) -> str:
    """The text under "## [VERSION]", up to the next version; empty if there is none."""
    heading = re.compile(rf"^## \[{re.escape(version)}\].*$", re.MULTILINE)
    found = heading.search(changelog)
    if not found:
        return ""
    rest = changelog[found.end() :]
    following = re.search(r"^## |^\[[^\]]+\]: ", rest, re.MULTILINE)
    return rest[: following.start() if following else None].strip()


def main() -> int:
    version = sys.argv[1].removeprefix("v")
    notes = release_notes(CHANGELOG.read_text(encoding="utf-8"), version)
    if not notes:
        print(f"CHANGELOG.md says nothing of version {version}", file=sys.stderr)
        return 1
    print(notes)
    return 0


if __name__ == "__main__":
    sys.exit(main())
