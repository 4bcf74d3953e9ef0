# SPDX-License-Identifier: Apache-2.0
r"""Serve a reward expression over HTTP: typed, batched, with time budgets; remote(URL) is it as a term elsewhere.

  guerdon serve 'math + 0.2*./mine.py:cites' --port 8000
  curl -s localhost:8000/score -H 'content-type: application/json' \
    -d '{"items": [{"completion": "4", "fields": {"answer": "4"}}]}'

It answers this machine alone, unless --host names an address that others reach; then clients have to bear a token, which is read
from --token-file or the environment variable GUERDON_TOKEN. Ctrl-C or SIGTERM stops it, after what was asked is answered.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from guerdon.errors import InputError


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("reward", metavar="REWARD", help="reward expression; path.py:name for your own functions")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1, this machine alone)")
    parser.add_argument("--port", type=int, default=8000, help="0: any that is free; it is printed (default: 8000)")
    parser.add_argument("--token-file", type=Path, metavar="FILE", help="holds the token that clients bear")
    parser.add_argument("--budget", type=float, default=10.0, help="seconds a function may take for one item (default: 10)")
    parser.add_argument("--max-batch", type=int, default=64, help="most items in one call of the reward (default: 64)")
    parser.add_argument("--max-wait", type=float, default=0.005, help="seconds a request waits for company (default: 0.005)")
    parser.add_argument("--max-body", type=int, default=8_000_000, help="most bytes of a request (default: 8000000)")
    parser.add_argument("--rate", type=float, default=0.0, help="requests a second of one client; 0: any number (default: 0)")


def execute(options: argparse.Namespace) -> None:
    from guerdon.rewards.parse import parse
    from guerdon.serving.app import Settings
    from guerdon.serving.server import address, listen, server_of

    reward, token = parse(options.reward), token_of(options.token_file)
    check(options)
    settings = Settings(
        budget=options.budget,
        max_batch=options.max_batch,
        max_wait=options.max_wait,
        max_body=options.max_body,
        rate=options.rate,
        token=token,
    )
    with listen(options.host, options.port, token) as listening:
        server = server_of(reward, settings)
        print(f"serving {reward} on {address(listening)}", flush=True)
        server.run(sockets=[listening])


def check(options: argparse.Namespace) -> None:
    for name, least in (("max_batch", 1), ("max_body", 1), ("max_wait", 0), ("rate", 0), ("port", 0)):
        if not getattr(options, name) >= least:
            raise InputError(f"serve: --{name.replace('_', '-')} should be {least} or more, got {getattr(options, name)}.")


def token_of(file: Path | None) -> str:
    token = (os.environ.get("GUERDON_TOKEN", "") if file is None else file.read_text(encoding="utf-8")).strip()
    if (file is not None and not token) or not token.isascii() or len(token.split()) > 1:
        where = file or "GUERDON_TOKEN"
        raise InputError(f"serve: expected a token of ASCII characters without spaces in {where}, got {len(token)} characters.")
    return token
