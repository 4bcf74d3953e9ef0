# SPDX-License-Identifier: Apache-2.0
"""A training step whose reward asks a judge: judged after sampling, and while longer completions are sampled.

    python benchmarks/judge_overlap.py run      steps of both in turn, for judges that take little and much of a step's time
    python benchmarks/judge_overlap.py page     the judges' part of docs/performance.md, from the stored results

The judge is a server of its own process on this machine, which sleeps for each request as a model elsewhere would think. A step
can't be shorter than its longer half: the limit is max(sampling, judging) + the rest, against sampling + judging + the rest.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from reporting import about, command_line, put, read, said, write

from guerdon.judges.judging import SLOW

RESULTS = Path(__file__).parent / "results" / "judge_overlap.json"
PROMPTS, SAMPLES, NEW = 32, 8, 64
LETTERS = "abcdefghijklmnopqrstuvwxyz"


class Case(NamedTuple):
    """``delay``: seconds the server thinks about a request; ``together``: items in one; ``concurrency``: requests in flight."""

    delay: float
    together: int
    concurrency: int


CASES = (Case(0.002, 1, 8), Case(0.008, 1, 8), Case(0.03, 4, 8), Case(0.03, 1, 8))


# ---- the judge


class Model(BaseHTTPRequestHandler):
    """Scores an answer by how often it has the letter `a`, after the time that is in the address."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        prompt = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["messages"][0]["content"]
        items = [json.loads(line) for line in prompt.partition("\nItems:\n")[2].splitlines()]
        said = [{"id": x["id"], "score": 1 + min(x["answer"].count("a"), 9)} for x in items]
        message = {"message": {"content": json.dumps({"verdicts": said})}, "finish_reason": "stop"}
        body = json.dumps({"choices": [message], "usage": {"prompt_tokens": 200, "completion_tokens": 20}}).encode()
        time.sleep(float(self.path.split("/")[1]))
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256


def serve() -> None:
    server = Server(("127.0.0.1", 0), Model)
    print(server.server_address[1], flush=True)
    server.serve_forever()


@contextlib.contextmanager
def serving() -> Iterator[str]:
    """The address of a server in a process of its own, so that it takes no time of this one."""
    with subprocess.Popen([sys.executable, __file__, "serve"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
        finally:
            process.kill()


# ---- the steps


class Arm:
    """The loop's own steps of one way to sample and judge, from the start that all have."""

    def __init__(self, url: str, case: Case, overlap: bool) -> None:
        from guerdon.credit import group_relative
        from guerdon.judges import judge
        from guerdon.objectives import clipped_surrogate, token_mean
        from guerdon.policies.language import LanguagePolicy
        from guerdon.protocols import Context, Sampling
        from guerdon.training.binding import bind
        from guerdon.training.loop import Progress, Run
        from guerdon.training.recipe import Recipe, Stage, Term
        from guerdon.training.sources import Prompts

        self.laps: dict[str, float] = {}
        self.reward = judge(f"{url}/{case.delay}/v1", "Many a.", model="m", together=case.together, concurrency=case.concurrency)
        contexts = [Context(f"{a}{b}", f"{a}{b}") for a in LETTERS for b in LETTERS]
        self.stage = Stage(
            "train",
            10**9,
            Prompts(contexts, PROMPTS, SAMPLES, Sampling(NEW), ready=self.reward.begin if overlap else None),
            [Term(1.0, clipped_surrogate, token_mean)],
            reward=self.reward,
            credit=bind(group_relative, scale="std", eps=1e-4),
            lr=1e-7,  # so that every step has completions of the same lengths
        )
        policy = LanguagePolicy.tiny([*LETTERS], width=128, layers=2, max_length=2 + NEW)
        recipe = Recipe("benchmark", lambda: policy, [self.stage], checkpoint_every=10**9, save_rollouts_every=0)
        self.run = Run(recipe, Path(tempfile.gettempdir()), policy, Progress(), [self])
        self.updater = policy.updater()

    def start(self, *_: Any) -> None: ...
    def finish(self, *_: Any) -> None: ...

    def metrics(self, step: int, metrics: Any) -> None:
        self.laps = {name.removeprefix("time/"): value for name, value in metrics.items() if name.startswith("time/")}
        self.laps["reward_mean"] = metrics["reward/total"]

    def step(self) -> dict[str, float]:
        begun = time.perf_counter()
        self.run.step(self.stage, self.updater)
        return self.laps | {"step": time.perf_counter() - begun}


def measured(url: str, case: Case, rounds: int) -> dict[str, Any]:
    """Seconds a step (medians), each way in turn; the first step of each is not counted."""
    arms = {"after": Arm(url, case, overlap=False), "overlapped": Arm(url, case, overlap=True)}
    steps: dict[str, list[dict[str, float]]] = {name: [] for name in arms}
    for i in range(rounds + 1):
        for name, arm in arms.items():
            steps[name].append(arm.step())
        print(case, i, {name: round(found[-1]["step"], 2) for name, found in steps.items()}, flush=True)
    alike = all(abs(a["reward_mean"] - b["reward_mean"]) < 1e-6 for a, b in zip(steps["after"], steps["overlapped"], strict=True))
    counted = {name: found[1:] for name, found in steps.items()}
    limits = [s["step"] - min(s["sample"], s["reward"]) for s in counted["after"]]
    pairs = list(zip(counted["after"], counted["overlapped"], strict=True))
    return {
        **case._asdict(),
        "rounds": rounds,
        "requests_a_step": arms["after"].reward.tally.requests / (rounds + 1),
        "sampling": middle(counted["after"], "sample"),
        "judging": middle(counted["after"], "reward"),
        "after": middle(counted["after"], "step"),
        "overlapped": middle(counted["overlapped"], "step"),
        "limit": round(median(limits), 3),
        "times_as_fast": sorted(round(a["step"] / b["step"], 3) for a, b in pairs),
        "overlaps": not arms["overlapped"].reward.judge.quick,
        "same_rewards": alike,
        "same_tally": arms["after"].reward.tally == arms["overlapped"].reward.tally,
        "steps": {name: [round(s["step"], 3) for s in found] for name, found in counted.items()},
    }


def middle(steps: Sequence[dict[str, float]], name: str) -> float:
    return round(median(s[name] for s in steps), 3)


# ---- results


def run(rounds: int) -> None:
    import torch

    torch.set_num_threads(1)
    with serving() as url:
        cases = [measured(url, case, rounds) for case in CASES]
    found = {
        "about": about("guerdon", "torch", "transformers"),
        "rows": PROMPTS * SAMPLES,
        "tokens": NEW,
        "cases": cases,
    }
    write(RESULTS, found)
    print(json.dumps(cases, indent=1))


def row(c: dict[str, Any]) -> str:
    judge = f"{c['delay'] * 1000:.0f} ms, {c['together']} item{'s' if c['together'] > 1 else ''}"
    ratios = c["times_as_fast"]
    times = f"{median(ratios):.2f} [{min(ratios):.2f}, {max(ratios):.2f}]"
    seconds = " | ".join(f"{c[k]:.2f} s" for k in ("sampling", "judging", "after"))
    found = f"{c['overlapped']:.2f} s | {c['limit']:.2f} s | {times}" if c["overlaps"] else "not overlapped | | the same"
    return f"| {judge} | {seconds} | {found} |"


def lines(told: dict[str, Any]) -> list[str]:
    completions = f"{told['rows']} completions of up to {told['tokens']} tokens"
    concurrency = " or ".join(str(n) for n in sorted({c["concurrency"] for c in told["cases"]}))
    return [
        "## Judges",
        "",
        f"A step of a tiny model on {completions}, on one thread, judged by a server on the same machine that sleeps",
        f"for each request, {concurrency} in flight. Overlapped: a completion is judged as soon as it has ended, while longer",
        f"ones are sampled, except by a judge that turns out to take less than {SLOW * 1000:.0f} ms a request: what overlapping",
        "saves, the asking takes from sampling. The limit is the step without the shorter of sampling and judging. Medians;",
        "range of rounds in brackets.",
        "",
        "| a request | sampling | judging | judged after | overlapped | limit | times as fast |",
        "|---|---|---|---|---|---|---|",
        *map(row, told["cases"]),
        "",
        said(told["about"]),
    ]


def main() -> None:
    parser, commands = command_line(__doc__)
    commands.add_parser("run").add_argument("--rounds", type=int, default=15)
    commands.add_parser("serve")
    options = parser.parse_args()
    if options.command == "run":
        run(options.rounds)
    else:
        {"page": lambda: put("judges", __file__, lines(read(RESULTS))), "serve": serve}[options.command]()


if __name__ == "__main__":
    main()
