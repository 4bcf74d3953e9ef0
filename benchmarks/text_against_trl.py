# SPDX-License-Identifier: Apache-2.0
"""Steps on text beside TRL's trainers: the same model, weights, data, batch, optimiser, number format and threads.

    python benchmarks/text_against_trl.py speed [grpo dpo reward]   a step of either in turn, in a process each
    python benchmarks/text_against_trl.py memory                    peak memory with a vocabulary of 151,936, a process each
    python benchmarks/text_against_trl.py half                      float32 and bfloat16 in turn: time, and what is learned
    python benchmarks/text_against_trl.py page                      writes the text part of docs/performance.md

A step is all of it: for GRPO prompts, 128 completions of 32 tokens, rewards, advantages, loss, gradient, optimiser and metrics;
for pairs tokenising (TRL did it before), reference, loss, gradient, optimiser and metrics. TRL's trainer waits in its callback
while ours takes a step, so both meet the same neighbours on the machine, each with its process to itself as in a training of its
own. Before that, both losses on the same tokens are compared.
"""

from __future__ import annotations

import json
import multiprocessing
import subprocess
import sys
import tempfile
import textwrap
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from reporting import about, command_line, processor, put, read, said, write
from torch import Tensor

from guerdon.credit import group_relative
from guerdon.objectives import bradley_terry, clipped_surrogate, dpo, pair_mean, token_mean
from guerdon.policies import products
from guerdon.policies.language import PRODUCTS, LanguagePolicy
from guerdon.policies.tokenizer import word_tokenizer
from guerdon.protocols import Context, Sampling
from guerdon.rewards import reward
from guerdon.training.binding import bind
from guerdon.training.loop import Progress, Run
from guerdon.training.observers import Jsonl
from guerdon.training.process import keep_freed_memory
from guerdon.training.recipe import Recipe, Stage, Term
from guerdon.training.sources import Pairs, Prompts

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "text_speed.json"

LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWX"
WIDTH, LAYERS, HEADS, VOCABULARY, WIDE = 256, 4, 4, 54, 151_936
PROMPTS, SAMPLES, NEW, CONTEXT = 16, 8, 32, 16
PAIRS, LONGEST = 64, 48
BETA, WARM = 0.1, 2
LR = 1e-6  # TRL's own; a rate that learns makes rows alike within the steps that are timed, and rows that are alike are read once
LEARNS = 1e-4
FLOOR_AND_AIM = {"grpo": (1.5, 2.5), "dpo": (1.3, 2), "reward": (1.3, 2)}
AIM_ROUNDED = {"grpo": 6, "dpo": 5, "reward": 5}


# ---- what both are given


def tokenizer(drawable: bool = True) -> Any:
    """``drawable`` False: its end token lies outside the model's vocabulary, so that every completion has all 32 tokens."""
    made = word_tokenizer(LETTERS)
    if not drawable:
        made.add_special_tokens({"eos_token": "<end>"})
    return made


def model(kind: str = "LlamaForCausalLM", vocabulary: int = VOCABULARY, **more: Any) -> Any:
    import transformers

    config = transformers.LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=WIDTH,
        intermediate_size=3 * WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        max_position_embeddings=128,
        initializer_range=WIDTH**-0.5,
        bos_token_id=1,
        eos_token_id=None,
        pad_token_id=0,
        **more,
    )
    torch.manual_seed(0)
    return getattr(transformers, kind)(config)


def words(rng: np.random.Generator, count: int) -> str:
    return "".join(rng.choice(list(LETTERS), count))


def prompts() -> list[str]:
    rng = np.random.default_rng(0)
    return [words(rng, CONTEXT - 1) for _ in range(512)]  # and the token that begins a text


def pairs() -> list[tuple[str, str, str]]:
    """(prompt, better, worse); a whole row, its end token included, has 24 to 48 tokens."""
    rng = np.random.default_rng(0)
    return [(words(rng, 15), *(words(rng, n) for n in rng.integers(7, LONGEST - CONTEXT, 2))) for _ in range(16 * PAIRS)]


def praised(completion: str) -> float:
    return completion.count("a") / NEW


# ---- a step of guerdon


def last_value(value: Tensor, mask: Tensor, first: Tensor, second: Tensor, target: Tensor) -> Any:
    """Bradley and Terry on the value head before a row's last token."""
    return bradley_terry(value.gather(1, mask.sum(1, keepdim=True) - 1)[:, 0], first, second, target)


def stage_of(case: str, lr: float = LR) -> Stage:
    fixed = {"name": case, "steps": 10**9, "lr": lr}
    if case == "grpo":
        contexts = [Context(p, p) for p in prompts()]
        return Stage(
            source=Prompts(contexts, PROMPTS, SAMPLES, Sampling(NEW)),
            terms=[Term(1.0, clipped_surrogate, token_mean)],
            reward=reward(praised),
            credit=bind(group_relative, scale="std", eps=1e-4),
            **fixed,
        )
    objective = bind(dpo, beta=BETA) if case == "dpo" else last_value
    return Stage(source=Pairs([(*p, 1.0) for p in pairs()], PAIRS), terms=[Term(1.0, objective, pair_mean)], **fixed)


@dataclass
class Ours:
    """The loop's own step, with its metrics written."""

    policy: LanguagePolicy
    stage: Stage
    directory: Path

    def __post_init__(self) -> None:
        jsonl = Jsonl()
        jsonl.start({}, self.directory, 0)
        recipe = Recipe("benchmark", lambda: self.policy, [self.stage], checkpoint_every=10**9, save_rollouts_every=0)
        self.run = Run(recipe, self.directory, self.policy, Progress(), [jsonl])
        self.updater = self.policy.updater()
        keep_freed_memory()  # as a training does

    def step(self) -> None:
        self.run.step(self.stage, self.updater)


def ours_of(case: str, directory: Path, vocabulary: int = VOCABULARY, lr: float = LR, **settings: Any) -> Ours:
    more = {"grpo": {}, "dpo": {"reference": "copy"}, "reward": {"value_head": True}}[case]
    policy = LanguagePolicy(model(vocabulary=vocabulary), tokenizer(case != "grpo"), **more, **settings)
    return Ours(policy, stage_of(case, lr), directory)


# ---- TRL's trainer


def theirs_of(case: str, directory: Path, steps: int, vocabulary: int = VOCABULARY) -> Any:
    import transformers
    import trl
    from datasets import Dataset
    from datasets.utils.logging import disable_progress_bar

    disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    config, trainer = {
        "grpo": (trl.GRPOConfig, trl.GRPOTrainer),
        "dpo": (trl.DPOConfig, trl.DPOTrainer),
        "reward": (trl.RewardConfig, trl.RewardTrainer),
    }[case]
    own: dict[str, dict[str, Any]] = {
        "grpo": {"num_generations": SAMPLES, "max_completion_length": NEW},
        "dpo": {"beta": BETA},
        "reward": {},
    }
    arguments = config(
        output_dir=str(directory),
        per_device_train_batch_size=PROMPTS * SAMPLES if case == "grpo" else PAIRS,
        max_steps=steps,
        learning_rate=LR,
        lr_scheduler_type="constant",
        gradient_checkpointing=False,  # it saves memory that is not short here, for time
        use_cpu=True,
        bf16=False,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        **own[case],
    )
    rows: dict[str, Sequence[Any]]
    if case == "grpo":
        rows = {"prompt": prompts()}
    elif case == "dpo":
        rows = dict(zip(("prompt", "chosen", "rejected"), zip(*pairs(), strict=True), strict=True))
    else:
        # The score stands on the last token; ours on the state before the end token, which is the same place.
        ids = [[tokenizer()(prompt + text).input_ids for text in both] for prompt, *both in pairs()]
        rows = {"chosen_ids": [a for a, _ in ids], "rejected_ids": [b for _, b in ids]}
    more: dict[str, Any] = {}
    if case == "grpo":
        more["reward_funcs"] = lambda completions, **_: [praised(c) for c in completions]
    if case == "dpo":
        more["ref_model"] = model(vocabulary=vocabulary)
    kind = {"kind": "LlamaForSequenceClassification", "num_labels": 1} if case == "reward" else {}
    made = trainer(
        model=model(vocabulary=vocabulary, **kind),
        args=arguments,
        train_dataset=Dataset.from_dict({k: list(v) for k, v in rows.items()}),
        processing_class=tokenizer(case != "grpo"),
        **more,
    )
    made.remove_callback(transformers.PrinterCallback)
    return made


# ---- in turn


def clocks() -> np.ndarray:
    return np.array([time.perf_counter(), time.process_time()])


def in_turn(case: str, steps: int, step: Callable[[], None]) -> tuple[np.ndarray, np.ndarray]:
    """[steps, 2] seconds of wall and of processor time: of ``step``, and of the trainer's own."""
    context = multiprocessing.get_context("spawn")
    pipe, its = context.Pipe()
    process = context.Process(target=steps_of_theirs, args=(its, case, steps + WARM, torch.get_num_threads()), daemon=True)
    process.start()
    its.close()  # so that its end is the end of the pipe
    ours, theirs = [], []
    for _ in range(steps + WARM):
        pipe.recv()  # it waits
        pipe.send(None)
        theirs.append(pipe.recv())
        at = clocks()
        step()
        ours.append(clocks() - at)
    process.join()
    return np.stack(ours[WARM:]), np.stack(theirs[WARM:])


def steps_of_theirs(pipe: Connection, case: str, steps: int, threads: int) -> None:
    """Train, each step when told to, and tell what it took."""
    from transformers import TrainerCallback

    class Turn(TrainerCallback):
        def wait(self) -> None:
            pipe.send(None)
            pipe.recv()
            self.since = clocks()

        def on_train_begin(self, *_: Any, **__: Any) -> None:
            self.wait()

        def on_step_end(self, args: Any, state: Any, *_: Any, **__: Any) -> None:
            pipe.send(clocks() - self.since)
            if state.global_step < steps:
                self.wait()

    torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory() as directory:
        trainer = theirs_of(case, Path(directory), steps)
        trainer.add_callback(Turn())
        trainer.train()


def speed(cases: Sequence[str], steps: int) -> None:
    found: dict[str, dict[str, Any]] = {}
    peaks, arithmetics = [matmul_peak()], dict[str, float]()
    for case in cases:
        with tempfile.TemporaryDirectory() as directory:
            ours = ours_of(case, Path(directory) / "ours")
            difference = disagreement(case, ours, theirs_of(case, Path(directory) / "theirs", 1))
            a, b = in_turn(case, steps, ours.step)
            found[case] = {
                "guerdon": a.round(4).tolist(),
                "trl": b.round(4).tolist(),
                "ratio": spread((b / a)[:, 0]),
                "ratio in processor time": spread((b / a)[:, 1]),
                "loss differs by": difference,
                "threads": torch.get_num_threads(),
                "shares": shares_of(ours),
            }
            arithmetics[case] = arithmetic(case, ours.policy)
        told = {k: v for k, v in found[case].items() if k not in ("guerdon", "trl")}
        print(case, np.median(a, 0).round(3), np.median(b, 0).round(3), told, flush=True)
        peaks.append(matmul_peak())  # the machine's peak is its best of moments that are minutes apart
    print(f"matmul of 2048 x 2048: {', '.join(f'{p / 1e9:.0f}' for p in peaks)} GFLOP/s", flush=True)
    for case, told in found.items():
        least = arithmetics[case] / max(peaks)
        took = float(np.median(np.array(told["guerdon"]), 0)[0])
        store("speed", case, told | {"share of matmul peak": least / took, "least": least, "peak": max(peaks)})


def shares_of(ours: Ours, steps: int = 5) -> dict[str, float]:
    """Shares of a step, medians: its sampling, its update and, of both, the products of linear layers."""
    places = [(products, "product"), (products._Product, "backward")]
    plain, spent, inside = [getattr(*place) for place in places], [0.0], [False]

    def timed(function: Callable[..., Any], *given: Any) -> Any:
        if inside[0]:  # a product of a backward pass that is timed as a whole
            return function(*given)
        inside[0], start = True, time.perf_counter()
        out = function(*given)
        spent[0] += time.perf_counter() - start
        inside[0] = False
        return out

    found = []
    try:
        for (owner, name), function in zip(places, plain, strict=True):
            setattr(owner, name, staticmethod(partial(timed, function)))
        for _ in range(steps):
            spent[0], start = 0.0, time.perf_counter()
            ours.step()
            whole = time.perf_counter() - start
            laps = json.loads((ours.directory / "metrics.jsonl").read_text().splitlines()[-1])
            found.append(np.array([laps["time/sample"], laps["time/update"], spent[0]]) / whole)
    finally:
        for (owner, name), function in zip(places, plain, strict=True):
            setattr(owner, name, function if owner is products else staticmethod(function))
    return dict(zip(("sampling", "update", "products"), np.median(found, 0).round(4).tolist(), strict=True))


def spread(x: np.ndarray) -> list[float]:
    """Lower quartile, median, upper quartile."""
    return np.quantile(x, [0.25, 0.5, 0.75]).round(3).tolist()


# ---- are they the same step?


def disagreement(case: str, ours: Ours, trainer: Any) -> float:
    """The largest difference of the two losses, and of any gradient relative to the largest, on one batch."""
    stage, policy = ours.stage, ours.policy
    batch = stage.source.batch(0, policy, 0)
    r, c = batch.rollouts, batch.comparisons
    if case == "reward":
        with torch.no_grad():
            policy.value_head.weight.copy_(trainer.model.score.weight)
    want = {"grpo": {"log_prob"}, "dpo": {"log_prob", "ref_log_prob"}, "reward": {"value"}}[case]
    out = policy.evaluate(r, frozenset(want))
    trainer.model.train()
    if c is None:
        advantage = torch.randn(len(r), generator=torch.Generator().manual_seed(0))
        loss = clipped_surrogate(out["log_prob"], r.log_prob, advantage[:, None].expand_as(r.log_prob), r.mask)
        mine = token_mean(loss, token_mean.count(r.mask))
        ids = torch.tensor(r.field("context_ids").values)
        data = {"prompt_ids": ids, "prompt_mask": torch.ones_like(ids), "completion_ids": r.action}
        data |= {"completion_mask": r.mask.long(), "advantages": advantage, "old_per_token_logps": r.log_prob}
        trainer.current_gradient_accumulation_steps = 1
        theirs = trainer._compute_loss(trainer.model, data | {"num_items_in_batch": r.mask.sum()})
    else:
        pair = (c.first[:, 0], c.second[:, 0], c.target)
        loss = dpo(out["log_prob"], out["ref_log_prob"], r.mask, *pair, beta=BETA) if case == "dpo" else None
        loss = last_value(out["value"], r.mask, *pair) if loss is None else loss
        mine = pair_mean(loss, len(c))
        trained = trainer.train_dataset.select(picked(len(trainer.train_dataset)))
        inputs = trainer.data_collator(list(trained))
        theirs = trainer.compute_loss(trainer.model, inputs)
    theirs.backward()
    mine.backward()
    grads = dict(trainer.model.named_parameters())
    shared = [(p.grad, grads[k].grad) for k, p in policy.inner.named_parameters() if k in grads and p.grad is not None]
    scale = max(float(g.abs().max()) for _, g in shared)
    worst = max(float((a - b).abs().max()) for a, b in shared) / scale
    policy.inner.zero_grad()
    trainer.model.zero_grad()
    worst = max(worst, abs(float(mine) - float(theirs)))
    if not worst < 1e-4:
        raise SystemExit(f"{case}: expected the same loss and gradient, got {float(mine)} and {float(theirs)}, apart by {worst}.")
    return worst


def picked(count: int) -> list[int]:
    from guerdon.training.sources import picks

    return [i for i, _ in picks(count, PAIRS, 0, 0)]


# ---- how far from the machine's limit


def matmul_peak(size: int = 2048) -> float:
    """Floating-point operations a second of a large float32 product, by the faster of MKL and oneDNN; the best of several."""
    a = torch.randn(size, size)
    best = 0.0
    for _ in range(12):
        start = time.perf_counter()
        products.product(a, a)
        best = max(best, 2 * size**3 / (time.perf_counter() - start))
    return best


def arithmetic(case: str, policy: LanguagePolicy) -> float:
    """Multiplications and additions that a step cannot do without: 2 a weight and token forward, twice that backward.

    Shared prompts count once, and so does what is sampled and then learnt from; attention, norms and activations are left out,
    padding too.
    """
    block = sum(p.numel() for k, p in policy.inner.named_parameters() if "layers" in k and p.dim() == 2)
    head = WIDTH * policy.vocabulary
    if case == "grpo":
        rows = PROMPTS * SAMPLES
        read = PROMPTS * CONTEXT + rows * (NEW - 1)
        return 2 * 3 * (read * block + rows * NEW * head)  # forward to sample, backward to learn
    lengths = [[len(x) + 1 for x in p[1:]] for p in pairs()]
    predicted = PAIRS * float(np.mean([sum(n) for n in lengths]))
    read = PAIRS * CONTEXT + predicted - 2 * PAIRS
    return 2 * (4 if case == "dpo" else 3) * (read * block + (predicted * head if case == "dpo" else 0))


# ---- bfloat16


def half(seeds: int, steps: int) -> None:
    """A step with float32 and one with bfloat16 products in turn, of each kind; and the mean reward of GRPO's steps."""
    amx = "amx_bf16" in Path("/proc/cpuinfo").read_text()
    for case in AIM_ROUNDED:
        took, _ = both_products(case, LR, 0, steps)
        ratio = took["float32"][WARM:] / took["bfloat16"][WARM:]
        found: dict[str, Any] = {
            "float32 over bfloat16": spread(ratio[:, 0]),
            "in processor time": spread(ratio[:, 1]),
            "amx": amx,
        }
        print(case, found, flush=True)
        if case == "grpo":
            curves = [both_products(case, LEARNS, seed, steps)[1] for seed in range(seeds)]
            found["reward"] = {k: [c[k] for c in curves] for k in PRODUCTS}
            print({k: [c[-1] for c in x] for k, x in found["reward"].items()}, flush=True)
        store("half", case, found)


def both_products(case: str, lr: float, seed: int, steps: int) -> tuple[dict[str, np.ndarray], dict[str, list[float]]]:
    """[steps, 2] seconds of wall and of processor time by kind of product, and what ``reward/total`` was, if anything."""
    with tempfile.TemporaryDirectory() as directory:
        runs = {k: ours_of(case, Path(directory) / k, lr=lr, products=k) for k in PRODUCTS}
        took: dict[str, list[np.ndarray]] = {k: [] for k in runs}
        for r in runs.values():
            r.run.recipe = replace(r.run.recipe, seed=seed)
        for _ in range(steps):
            for k, r in runs.items():
                at = clocks()
                r.step()
                took[k].append(clocks() - at)
        told = {k: map(json.loads, (r.directory / "metrics.jsonl").read_text().splitlines()) for k, r in runs.items()}
        curves = {k: [round(x["reward/total"], 4) for x in lines if "reward/total" in x] for k, lines in told.items()}
    return {k: np.stack(x) for k, x in took.items()}, curves


# ---- memory


def memory() -> None:
    """Peak resident memory of a process that does two steps with the wide vocabulary, and of it what the steps added."""
    for case in ("grpo",):
        found = {}
        for who in ("guerdon", "trl"):
            done = subprocess.run([sys.executable, __file__, "peak", case, who], check=True, capture_output=True, text=True)
            found[who] = json.loads(done.stdout.splitlines()[-1])
        print(case, found, flush=True)
        store("memory", case, found)


def peak(case: str, who: str) -> None:
    with tempfile.TemporaryDirectory() as directory:
        if who == "guerdon":
            ours = ours_of(case, Path(directory) / "ours", WIDE)
            before = resident("VmRSS")
            for _ in range(2):  # in the second the optimiser has its memory
                ours.step()
        else:
            trainer = theirs_of(case, Path(directory) / "theirs", 2, WIDE)
            before = resident("VmRSS")
            trainer.train()
        print(json.dumps({"MiB before": before, "MiB at most": resident("VmHWM")}))


def resident(what: str) -> int:
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith(what))
    return int(line.split()[1]) // 1024


# ---- the page


def lines(stored: dict[str, Any]) -> list[str]:
    text = f"""A step from end to end: {LAYERS} layers of width {WIDTH}, vocabulary {VOCABULARY}, float32. Both take a step in
        turn, each in a process of its own as it ships, so both meet the same neighbours on the machine; before that, losses and
        gradients on the same tokens agree. Medians, quartiles in brackets. Of the limit: the time that a large matrix product
        would take for the arithmetic that the step cannot do without, over the step's own."""
    return ["## Text beside TRL", "", filled(text), *(x for name, told in stored.items() for x in lines_of(name, told))]


def lines_of(name: str, told: dict[str, Any]) -> list[str]:
    """Of one processor."""
    names = {
        "grpo": f"GRPO, {PROMPTS} prompts x {SAMPLES} completions of {NEW} tokens",
        "dpo": f"DPO, {PAIRS} pairs of up to {LONGEST} tokens",
        "reward": f"reward model, {PAIRS} pairs of up to {LONGEST} tokens",
    }
    out = ["", f"### {name}: {told['speed']['grpo']['peak'] / 1e9:.0f} GFLOP/s in float32", ""]
    out += [
        "| step | threads | guerdon | TRL | times as fast | in processor time | floor, aim | of the limit | at the limit |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    missed = []
    for case, name in names.items():
        if r := told.get("speed", {}).get(case):
            a, b = (np.median(np.array(r[k]), 0)[0] for k in ("guerdon", "trl"))
            ratios = [f"{x[1]:.2f} [{x[0]:.2f}, {x[2]:.2f}]" for x in (r["ratio"], r["ratio in processor time"])]
            share = f"{r['share of matmul peak']:.0%}"
            floor, aim = FLOOR_AND_AIM[case]
            cells = [f"{a:.2f} s", f"{b:.2f} s", *ratios, f"{floor}, {aim}", share, f"{b / r['least']:.1f} times"]
            out.append(f"| {name} | {r['threads']} | {' | '.join(cells)} |")
            if r["ratio"][1] < aim:
                missed += [why_missed(case, name.partition(",")[0], floor if r["ratio"][1] < floor else 0, aim, a, b, r), ""]
    out += ["", *missed]
    if r := told.get("memory", {}).get("grpo"):
        most = [r[k]["MiB at most"] for k in ("guerdon", "trl")]
        added = [r[k]["MiB at most"] - r[k]["MiB before"] for k in ("guerdon", "trl")]
        text = f"""With a vocabulary of {WIDE:,} the process of the GRPO step takes {most[0]:,} MiB at most, TRL's {most[1]:,}:
            {most[0] / most[1]:.2f} of it. Of that the steps added {added[0]:,} and {added[1]:,}: {added[0] / added[1]:.2f}."""
        out += ["", filled(text)]
    if "half" in told:
        out += ["", filled(rounded(told["half"], told["speed"]))]
    return [*out, "", said(told["about"])]


def rounded(half: dict[str, Any], speed: dict[str, Any]) -> str:
    """What products in bfloat16 do to time, and to what is learned."""
    each = []
    for case, name in {"grpo": "GRPO", "dpo": "DPO", "reward": "the reward model"}.items():
        low, mid, high = half[case]["float32 over bfloat16"]
        times = speed[case]["ratio"][1] * mid
        goal = f"aim {AIM_ROUNDED[case]}, {'met' if times >= AIM_ROUNDED[case] else 'missed'}"
        each.append(f"{name} {mid:.2f} [{low:.2f}, {high:.2f}], about {times:.1f} times TRL in float32 ({goal})")
    rest = (1 - speed["grpo"]["shares"]["products"]) * np.median(np.array(speed["grpo"]["guerdon"]), 0)[0]
    curves = {k: np.array(v) for k, v in half["grpo"]["reward"].items()}
    seeds, steps = curves["float32"].shape
    first, last = ({k: v[:, part].mean() for k, v in curves.items()} for part in (slice(5), slice(-5, None)))
    return f"""With `LanguagePolicy(products="bfloat16")` or `guerdon train products=bfloat16` a step is faster than with float32:
        {"; ".join(each)}. The aims are for processors that multiply tiles of bfloat16 (AMX); this one
        {"does" if half["grpo"]["amx"] else "does not"}, and what is not a product, {rest:.2f} s of GRPO's step, takes as long in
        either. Over {seeds} seeds GRPO's mean reward at a rate of {LEARNS:g} goes from {first["bfloat16"]:.3f} in the first five
        steps to {last["bfloat16"]:.3f} in the last five of {steps}; with float32 products from {first["float32"]:.3f} to
        {last["float32"]:.3f}."""


def why_missed(case: str, name: str, floor: float, aim: float, ours: float, theirs: float, r: dict[str, Any]) -> str:
    """What stands between a step and its aim, and its ``floor``, 0 if that is met."""
    which = f"its floor of {floor} times and its aim of {aim}" if floor else f"its aim of {aim} times"
    missed = f"""{name} misses {which}, a step of {theirs / aim:.2f} s: at {r["least"] * aim / theirs:.0%} of the peak, and the
        limit is {r["least"]:.2f} s."""
    if "shares" in r:
        part = {k: share * ours for k, share in r["shares"].items()}
        sampled = (
            f", and the calls of {NEW} small steps of sampling, which takes {part['sampling']:.2f} s" if case == "grpo" else ""
        )
        missed += f""" Of the step {part["products"]:.2f} s are products of linear layers, which at the peak would take that
            limit. The other {ours - part["products"]:.2f} s are attention, norms, activations, the softmax over the vocabulary,
            the optimiser{sampled}."""
    else:
        missed += """ Measured by an earlier revision, beside TRL in one process, which multiplied in an update what sampling had
            multiplied, and let its memory go; how the step divides was not measured there."""
    return filled(missed)


def filled(text: str) -> str:
    return textwrap.fill(" ".join(text.split()), 150)


# ---- storing


def store(kind: str, case: str, value: Any) -> None:
    """By processor: how much faster a step is depends on what it runs on."""
    stored = read(RESULTS)
    here = stored.setdefault(processor(), {})
    here["about"] = about("guerdon", "trl", "transformers", "torch", "numpy")
    here.setdefault(kind, {})[case] = value
    write(RESULTS, stored)


def main() -> None:
    parser, commands = command_line(__doc__)
    fast = commands.add_parser("speed")
    fast.add_argument("cases", nargs="*", default=["grpo", "dpo", "reward"])
    fast.add_argument("--steps", type=int, default=20)
    fast.add_argument("--threads", type=int, default=2)
    commands.add_parser("memory")
    both = commands.add_parser("half")
    both.add_argument("--seeds", type=int, default=2)
    both.add_argument("--steps", type=int, default=20)
    both.add_argument("--threads", type=int, default=2)
    one = commands.add_parser("peak")
    one.add_argument("case")
    one.add_argument("who")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(getattr(options, "threads", 2))
    if options.command == "speed":
        speed(options.cases, options.steps)
    elif options.command == "memory":
        memory()
    elif options.command == "half":
        half(options.seeds, options.steps)
    elif options.command == "page":
        put("text", __file__, lines(read(RESULTS)))
    elif options.command == "peak":
        peak(options.case, options.who)


if __name__ == "__main__":
    main()
