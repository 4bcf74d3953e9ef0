# SPDX-License-Identifier: Apache-2.0
"""Which functions of the library a training step calls, for a policy of each kind: recorded while one runs.

python docs/call_paths.py           print the block of docs/architecture.md
python docs/call_paths.py --write   write it there
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parent / "architecture.md"
BEGIN, END = "<!-- call paths: made by docs/call_paths.py -->", "<!-- end of call paths -->"

SPINE = (*(f"training.{name}" for name in ("loop", "scoring", "crediting", "update", "gradient")), "credit.", "objectives.")
"""Modules whose functions are listed one by one."""

OWN = ("Prompts", "Environments", "LanguagePolicy", "ActorCritic", "FlowPolicy", "GradientUpdater", "ActorCriticUpdater")
"""Classes in which the kinds differ: where a batch comes from, and what a policy samples, computes and learns."""

HIDDEN = ("<", "_", "check_", "mean_parts", "counted_only", "seed_of", "Clock", "state_dict", "device", "outputs", "parameters")
"""Beginnings of the names of helpers that a reader does not look for."""


def text(credit: str) -> Any:
    """A tiny language model writes sums."""
    from guerdon.credit import gae, group_relative
    from guerdon.objectives import clipped_surrogate, token_mean, value_loss
    from guerdon.policies.language import LanguagePolicy
    from guerdon.protocols import Sampling
    from guerdon.recipes.quickstart import chain_right
    from guerdon.tasks import running_digits
    from guerdon.training.binding import bind
    from guerdon.training.recipe import Recipe, Stage, Term
    from guerdon.training.sources import Prompts, contexts_of

    source = Prompts(contexts_of(running_digits.make_tasks(4, 3, 0)), 2, 4, Sampling(max_new_tokens=8))
    clipped = Term(1.0, clipped_surrogate, token_mean)
    critic = [Term(0.5, value_loss, token_mean)] if credit == "gae" else []
    how = bind(gae, gamma=1.0, lam=0.95) if credit == "gae" else group_relative
    policy = partial(
        LanguagePolicy.tiny, running_digits.TOKENS, width=16, layers=1, heads=2, max_length=32, value_head=bool(critic)
    )
    return Recipe(credit, policy, [Stage("train", 1, source, [clipped, *critic], chain_right, how)])


def control() -> Any:
    """PPO on CartPole."""
    import gymnasium

    from guerdon.credit import gae, whiten
    from guerdon.objectives import clipped_surrogate, token_mean, value_loss
    from guerdon.policies.actor_critic import ActorCritic
    from guerdon.rewards.fields import environment
    from guerdon.sampling.environments import Environments
    from guerdon.training.binding import bind
    from guerdon.training.recipe import Recipe, Stage, Term

    one = gymnasium.make("CartPole-v1")
    terms = [Term(1.0, clipped_surrogate, token_mean), Term(0.5, value_loss, token_mean)]
    stage = Stage(
        "train", 1, Environments("CartPole-v1", 2, 32), terms, environment(), bind(gae, "next_value", gamma=0.99, lam=0.95),
        transforms=[whiten], updates=2, by="step", shuffle=True,
    )  # fmt: skip
    return Recipe("control", lambda: ActorCritic.of(one.observation_space, one.action_space), [stage])


def flow() -> Any:
    """Flow-GRPO on a two-dimensional density."""
    from guerdon.policies.flow import FlowPolicy, stochastic
    from guerdon.protocols import Context
    from guerdon.systems.generator.densegrpo import flow_grpo
    from guerdon.tasks import densities
    from guerdon.training.recipe import Recipe
    from guerdon.training.sources import Prompts

    sampling: Any = stochastic(4)
    source = Prompts([Context("mode 0", 0), Context("mode 1", 1)], 2, 4, sampling)
    policy = partial(FlowPolicy, 2, labels=densities.MODES, reference=True, seed=0)
    return Recipe("flow", policy, [flow_grpo(source, 1, densities.mode_probability)])


KINDS: dict[str, Callable[[], Any]] = {
    "text, groups": partial(text, "groups"),
    "text, critic": partial(text, "gae"),
    "control": control,
    "flow": flow,
}


def called(make: Callable[[], Any]) -> list[str]:
    """module.function of everything in guerdon that one training step calls, in the order of first calls."""
    from guerdon.training import loop

    recipe, found = make(), dict[str, None]()

    def record(frame: Any, event: str, _: Any) -> None:
        module = frame.f_globals.get("__name__", "")
        if event == "call" and module.startswith("guerdon."):
            found.setdefault(f"{module.removeprefix('guerdon.')}.{frame.f_code.co_qualname}")

    whole = loop.Run.step

    def step(*arguments: Any) -> None:
        sys.setprofile(record)
        try:
            whole(*arguments)
        finally:
            sys.setprofile(None)

    loop.Run.step = step  # type: ignore[method-assign]
    try:
        with tempfile.TemporaryDirectory() as directory:
            loop.train(recipe, Path(directory) / "run")
    finally:
        loop.Run.step = whole  # type: ignore[method-assign]
    return list(found)


def shown(name: str) -> bool:
    return not any(part.startswith(HIDDEN) for part in name.split(".")) and name != "training.loop.Run.step"


def block() -> str:
    """The block of the page."""
    calls = {kind: [n for n in called(make) if shown(n)] for kind, make in KINDS.items()}
    spine = list(dict.fromkeys(n for names in calls.values() for n in names if n.startswith(SPINE)))
    spine.sort(key=lambda n: next(i for i, s in enumerate(SPINE) if n.startswith(s)))
    lines = [BEGIN, "", f"| called in a training step | {' | '.join(KINDS)} |", f"|---|{'---|' * len(KINDS)}"]
    lines += [f"| `{n}` | {' | '.join('x' if n in names else '' for names in calls.values())} |" for n in spine]
    lines += ["", "Where the kinds differ, in the order of first calls (the updater is the same or a subclass):", ""]
    for kind, names in calls.items():
        path = [".".join(n.split(".")[-2:]) for n in names if n.split(".")[-2] in OWN]
        lines.append(f"- {kind}: {', '.join(f'`{n}`' for n in path)}")
    return "\n".join([*lines, "", END])


def main() -> None:
    made = block()
    if "--write" not in sys.argv:
        print(made)
        return
    before, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
    PAGE.write_text(before + made + rest.split(END)[1], encoding="utf-8")


if __name__ == "__main__":
    main()
