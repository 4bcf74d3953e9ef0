# SPDX-License-Identifier: Apache-2.0
"""Each layer complains about a system that is broken in its way, and about nothing of one that is not."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from guerdon import systems
from guerdon.errors import InputError
from guerdon.systems.results import store
from tests.systems import layers

WHOLE = Path(__file__).parent / "data" / "fast_climb.py"
Broken = Callable[..., str]


@pytest.fixture
def broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Broken:
    """Writes the stand-in with some of its text replaced and returns the file's name."""
    monkeypatch.chdir(tmp_path)
    text = WHOLE.read_text(encoding="utf-8")

    def write(*changes: tuple[str, str]) -> str:
        changed = text
        for old, new in changes:
            assert old in changed, old
            changed = changed.replace(old, new)
        path = tmp_path / f"climb_{abs(hash(changes))}.py"
        path.write_text(changed, encoding="utf-8")
        return str(path)

    return write


def test_the_stand_in_is_whole(broken: Broken) -> None:
    whole = broken()
    system = systems.system_of(whole)
    assert layers.form(whole) == layers.contract(system) == layers.golden(system) == layers.reduction(system) == []


FORM = {
    "title": ('"""Fast climb: ascent', '"""Climbing: ascent'),
    "idea": ("A stand-in for a published method, with trainings of milliseconds. Each", "It climbs.\n\nEach"),
    "equation": ("x' = x − gain x", "x' is less than x"),
    r"arXiv:2501\.00001": ('arxiv=""', 'arxiv="2501.00001"'),
    "2501.12345": ('arxiv=""', 'arxiv="25.1"'),
    "Lastname Year": ('paper="Nobody 2024"', 'paper="Nobody et al."'),
    "does not name Someone 2023": ('paper="Nobody 2024"', 'paper="Someone 2023"'),
    "Departures": ("Departures: none known", "It is as published."),
    "`still` has no docstring": ('    """(pulled by nothing, where it was)."""\n', ""),
    "without a doctest": ("    >>> pulled", "    pulled"),
    "SPDX": ("# SPDX-License-Identifier: Apache-2.0\n", ""),
    "lines; more than": ("SYSTEM = System(", "\n" * layers.LINES + "SYSTEM = System("),
    "`roles` is empty": ('roles=("objective",)', "roles=()"),
    "gives no reason": ('    built_from=("nothing",),', '    built_from=("nothing",),\n    exempt={"rows": "no"},'),
    "`extras` should be among": ('    built_from=("nothing",),', '    built_from=("nothing",),\n    extras=("nothing",),'),
    "states nothing": ('"One and one is two exactly."', '"One."'),
    "has no budget": ('budget="20 samples"', 'budget=""'),
}


@pytest.mark.parametrize("complaint", FORM)
def test_form_sees(complaint: str, broken: Broken) -> None:
    found = layers.form(broken(FORM[complaint]))
    assert any(re.search(complaint, f) for f in found), found


CONTRACT = {
    "dtype": ("torch.where(mask, x - gain * x, 0)", "torch.where(mask, x - gain * x, 0).float()"),
    "inputs": ("return torch.where(mask, x - gain * x, 0)", "x -= gain * x\n    return x * mask"),
    "repeats": ("torch.where(mask, x - gain * x, 0)", "torch.where(mask, x - torch.rand(1) * x, 0)"),
    "rows": ("torch.where(mask, x - gain * x, 0)", "torch.where(mask, x - gain * x[0], 0)"),
    "padding": ("torch.where(mask, x - gain * x, 0)", "torch.where(mask, x - gain * x.mean(), 0)"),
    "extremes": ("torch.where(mask, x - gain * x, 0)", "torch.where(mask, x - gain * (x * 20).exp().log(), 0)"),
    "extremes: `pulled` has a gradient": (
        "torch.where(mask, x - gain * x, 0)",
        "torch.where(mask, x - gain * ((x - x.mean()) ** 2).sqrt(), 0)",
    ),
}


@pytest.mark.parametrize("complaint", CONTRACT)
def test_contract_sees(complaint: str, broken: Broken) -> None:
    found = layers.contract(systems.system_of(broken(CONTRACT[complaint])))
    assert any(f.startswith(complaint) for f in found), found


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (("[True, False], [True, True]])", "[True, True], [True, True]])"), "no `mask` with a False"),
        (("[-1.0, 4.0]], dtype=dtype)", "[-1.0, 4.0]])"), "inputs that are not torch.float64"),
    ],
)
def test_contract_sees_an_example_that_shows_nothing(change: tuple[str, str], complaint: str, broken: Broken) -> None:
    assert any(complaint in f for f in layers.contract(systems.system_of(broken(change))))


def test_results_in_a_dataclass_are_looked_into(broken: Broken) -> None:
    loss = ("torch.where(mask, x - gain * x, 0)", 'Loss(torch.where(mask, x - gain * x, 0), "step", mask)')
    text = ("import torch\n", "import torch\nfrom guerdon.objectives.loss import Loss\n")
    printed = ("gain=0.25)\n    tensor", "gain=0.25).value\n    tensor")
    system = systems.system_of(broken(loss, text, printed))
    assert layers.contract(system) == layers.golden(system) == []
    wrong = (loss[0], loss[1].replace("- gain * x,", "- gain * x[0],"))
    assert layers.contract(systems.system_of(broken(wrong, text, printed))) != []


def test_an_exemption_silences_its_check_alone(broken: Broken) -> None:
    exempt = ("    roles=(", '    exempt={"padding": "the mean of all is what the paper says"},\n    roles=(')
    assert layers.contract(systems.system_of(broken(CONTRACT["padding"], exempt))) == []
    assert layers.contract(systems.system_of(broken(CONTRACT["rows"], exempt))) != []


@pytest.mark.parametrize(
    ("doctest", "complaint"),
    [
        ("    >>> pulled(torch.zeros(1, 1), torch.ones(1, 1).bool(), gain=0.25)\n    tensor([[0.]])\n", "returns zeros"),
        ("    >>> pulled(torch.ones(1, 1), torch.ones(1, 1).bool(), gain=0.0)\n    tensor([[1.]])\n", "returns its input"),
    ],
)
def test_golden_sees_a_doctest_that_does_not_move(doctest: str, complaint: str, broken: Broken) -> None:
    text = WHOLE.read_text(encoding="utf-8")
    old = text[text.index("    >>> pulled") : text.index('    """\n    return torch.where')]
    assert any(complaint in f for f in layers.golden(systems.system_of(broken((old, doctest)))))


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (("pulled(x, x == x, 0.0), x", "pulled(x, x == x, 2e-6), x"), "differs by"),
        (("pulled(x, x == x, 0.0), x", "pulled(x, x == x, 0.0)[0], x"), "shapes"),
        (("pulled(x, x == x, 0.0), x", "x, x"), "the same tensor"),
        (("pulled(x, x == x, 0.0), x", "pulled(0 * x, x == x, 0.0), 0 * x"), "shown on zeros"),
    ],
)
def test_reduction_sees(change: tuple[str, str], complaint: str, broken: Broken) -> None:
    assert any(complaint in f for f in layers.reduction(systems.system_of(broken(change))))


def results_of(slug: str, **changes: object) -> list[dict[str, object]]:
    """What verify would have stored, as far as the layer reads it."""
    system = systems.system_of(slug)
    arms = {arm: {"core_seconds": 1.0} for arm in ("fast", "slow")}
    comparison = {"verdict": "held", "seeds": [1000, 1001], "arms": arms, **changes}
    marks = [layers.fingerprint(c) for c in system.claims]
    return [{"fingerprint": m, **x} for m, x in zip(marks, [comparison, {"verdict": "held"}, {"verdict": "held"}], strict=True)]


def searched(best: float = 0.3) -> dict[str, object]:
    rows = [{"choice": {"lr": lr}, "scores": [-abs(lr - best)]} for lr in (0.1, 0.3)]
    table, chosen = (dict.fromkeys(("fast", "slow"), x) for x in (rows, {"lr": best}))
    return {"0": {"grid": {"lr": [0.1, 0.3]}, "table": table, "best": chosen}}


def test_claim_sees_what_was_not_verified_as_it_is(broken: Broken) -> None:
    slug = broken()
    assert any("not verified as they are" in f for f in layers.claim(slug))
    store(slug, {"claims": results_of(slug), "search": searched()})
    assert layers.claim(slug) == []
    changed = broken(("climbs higher than", "climbs faster than"))
    store(changed, {"claims": results_of(slug), "search": searched()})
    assert any("not verified as they are" in f for f in layers.claim(changed))


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"seeds": [7, 1000]}, "seeds for development"),
        ({"arms": {"fast": {"core_seconds": 61.0}}}, "61 core-seconds"),
    ],
)
def test_claim_sees_an_unfair_or_dear_result(changes: dict[str, object], complaint: str, broken: Broken) -> None:
    slug = broken()
    store(slug, {"claims": results_of(slug, **changes), "search": searched()})
    assert any(complaint in f for f in layers.claim(slug))


def test_claim_sees_a_failure_without_a_word(broken: Broken) -> None:
    slug = broken(('tried="nothing else"', 'tried=""'))
    store(slug, {"claims": results_of(slug, verdict="not held"), "search": searched()})
    assert layers.claim(slug) == ["claim 1 is not held, and `tried` does not say what was tried"]


def test_claim_sees_a_choice_that_is_not_the_best_of_the_search(broken: Broken) -> None:
    slug = broken()
    store(slug, {"claims": results_of(slug), "search": searched(best=0.1)})
    with pytest.raises(InputError, match=r"`chosen` of arm fast to be the best of the stored search, lr=0\.1, got lr=0\.3"):
        layers.claim(slug)
