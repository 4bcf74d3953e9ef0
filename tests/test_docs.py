# SPDX-License-Identifier: Apache-2.0
"""The examples of the README and the documentation run as written: every ```pycon block, one namespace a page."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
_BLOCK = re.compile(r"^```pycon\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def examples(page: str) -> str:
    """The page with everything but its ```pycon blocks blanked, so that line numbers stay."""
    kept = [""] * (page.count("\n") + 1)
    for block in _BLOCK.finditer(page):
        first = page.count("\n", 0, block.start(1))
        lines = block.group(1).split("\n")
        kept[first : first + len(lines)] = lines
    return "\n".join(kept)


def failures(page: str, name: str) -> int:
    test = doctest.DocTestParser().get_doctest(examples(page), {}, name, name, 0)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    runner.run(test)
    return runner.failures


def pages() -> list[str]:
    return sorted(str(p.relative_to(ROOT)) for p in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


@pytest.mark.parametrize("page", pages())
def test_examples_run(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert failures((ROOT / page).read_text(encoding="utf-8"), page) == 0


def test_a_wrong_example_is_seen() -> None:
    page = "Text\n\n```pycon\n>>> a = 1\n>>> a + 1\n2\n```\n\n>>> not an example\n\n```pycon\n>>> a\n{}\n```\n"
    assert failures(page.format(1), "page") == 0
    assert failures(page.format(2), "page") == 1
