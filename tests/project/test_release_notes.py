"""tools/release_notes.py returns a version's section of the changelog."""

from __future__ import annotations

import subprocess
import sys

from tests.support import ROOT

CHANGELOG = """\
# Changelog

## [Unreleased]

- next

## [0.2.0] - 2026-12-01

### Added

- this

## [0.1.0] - 2026-11-01

- that

[0.2.0]: https://example.org
"""


def notes(tmp_path, version):
    (tmp_path / "tools").mkdir()
    script = tmp_path / "tools" / "release_notes.py"
    script.write_text((ROOT / "tools" / "release_notes.py").read_text())
    (tmp_path / "CHANGELOG.md").write_text(CHANGELOG)
    return subprocess.run(
        [sys.executable, script, version], capture_output=True, text=True, check=False
    )


def test_the_notes_of_a_version_end_before_the_next_one(tmp_path):
    done = notes(tmp_path, "0.2.0")
    assert (done.stdout, done.returncode) == ("### Added\n\n- this\n", 0)


def test_the_last_version_ends_before_the_links(tmp_path):
    assert notes(tmp_path, "v0.1.0").stdout == "- that\n"


def test_a_version_that_the_changelog_lacks_is_an_error(tmp_path):
    done = notes(tmp_path, "0.3.0")
    assert (done.stdout, done.returncode) == ("", 1)
    assert "version 0.3.0" in done.stderr
