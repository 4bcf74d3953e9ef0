# SPDX-License-Identifier: Apache-2.0
"""Five layers over every system that is found: form, contract, golden, reduction, claim. Doctests themselves run with the others.

The trainings behind a claim are not repeated here; their stored results are checked against the claims as they are now.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from guerdon import systems
from tests.systems import layers

SLUGS = systems.slugs()


@pytest.fixture
def system(request: pytest.FixtureRequest) -> systems.System:
    return systems.system_of(request.param)


@pytest.mark.parametrize("slug", SLUGS)
def test_form(slug: str) -> None:
    assert layers.form(slug) == []


@pytest.mark.parametrize("system", SLUGS, indirect=True)
def test_contract(system: systems.System) -> None:
    assert layers.contract(system) == []


@pytest.mark.parametrize("system", SLUGS, indirect=True)
def test_golden(system: systems.System) -> None:
    assert layers.golden(system) == []


@pytest.mark.parametrize("system", SLUGS, indirect=True)
def test_reduction(system: systems.System) -> None:
    assert layers.reduction(system) == []


@pytest.mark.parametrize("slug", SLUGS)
def test_claim(slug: str) -> None:
    assert layers.claim(slug) == []


def test_the_page_is_that_of_the_files_and_results() -> None:
    from guerdon.systems.table import COMMAND, page, picture_of

    docs = Path(__file__).resolve().parents[2] / "docs"
    again = f"the page is not up to date; write it again: {COMMAND}"
    assert (docs / "systems.md").read_text(encoding="utf-8") == page(), again
    for slug in SLUGS:
        if drawn := picture_of(slug):
            assert (docs / "systems" / f"{slug}.svg").read_text(encoding="utf-8") == drawn, again
