# SPDX-License-Identifier: Apache-2.0
"""How fast our batched worlds step, one core, 256 of each, beside Gymnasium's vector environment of single ones:

    OMP_NUM_THREADS=1 python benchmarks/worlds.py

Random actions; all are measured in turn, several times over, in seconds of the processor, so that a busy machine does them no
wrong. Steps are those of single worlds. Needs gymnasium, and minigrid for its row.
"""

import statistics
import time

import gymnasium
import numpy as np

from guerdon import worlds

WORLDS, STEPS, ROUNDS = 256, 200, 5


def minigrid():
    import minigrid  # noqa: F401  # its environments register themselves

    return gymnasium.make_vec("MiniGrid-DoorKey-8x8-v0", WORLDS, vectorization_mode="sync")


OURS = {
    "key_door, size 8": lambda: worlds.key_door(WORLDS, 8),
    "key_door, size 16": lambda: worlds.key_door(WORLDS, 16),
    "boat_race": lambda: worlds.boat_race(WORLDS),
    "tomato_watering": lambda: worlds.tomato_watering(WORLDS),
    "side_effects": lambda: worlds.side_effects(WORLDS),
    "deep_sea_treasure": lambda: worlds.deep_sea_treasure(WORLDS),
    "four_rooms": lambda: worlds.table_world(worlds.four_rooms(), WORLDS),
}
THEIRS = {
    "CartPole-v1, SyncVectorEnv": lambda: gymnasium.make_vec("CartPole-v1", WORLDS, vectorization_mode="sync"),
    "MiniGrid-DoorKey-8x8-v0, SyncVectorEnv": minigrid,
}


def steps_per_second(world, actions: np.ndarray) -> float:
    began = time.process_time()
    for a in actions:
        world.step(a)
    return actions.size / (time.process_time() - began)


def main() -> None:
    made = {name: make() for name, make in {**OURS, **THEIRS}.items()}
    rng = np.random.default_rng(0)
    found: dict[str, list[float]] = {name: [] for name in made}
    for world in made.values():
        world.reset(seed=0)
    for round_ in range(ROUNDS + 1):
        for name, world in made.items():
            steps = STEPS if name in OURS else STEPS // 20
            rate = steps_per_second(world, rng.integers(0, world.single_action_space.n, (steps, WORLDS)))
            if round_:  # the first is for warming up
                found[name].append(rate)
    rate = {name: statistics.median(x) for name, x in found.items()}
    print(f"{'':40s} {'steps/s':>12s}" + "".join(f"  x {name.split(',')[0]}" for name in THEIRS))
    for name in made:
        ratios = "".join(f"  {rate[name] / rate[their]:>{len(their.split(',')[0]) + 2}.1f}" for their in THEIRS)
        print(f"{name:40s} {rate[name]:12,.0f}{ratios}")


if __name__ == "__main__":
    main()
