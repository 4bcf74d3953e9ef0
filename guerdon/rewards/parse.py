# SPDX-License-Identifier: Apache-2.0
"""Reading a reward from text: the same words and operators as in Python, and nothing else.

    exact + 0.2 * format('<answer>') + linear(0, 1, 100) * ./mine.py:tidy.gate(on=exact, above=0.5)

The text is taken apart by Python's own parser and rebuilt node by node from a fixed list; nothing in it is executed.
``path.py:name`` loads that file and takes the function or reward of that name from it, so such a text deserves the trust that
the file does.
"""

from __future__ import annotations

import ast
import difflib
import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

from guerdon.errors import ExpressionError, GuerdonError, InputError
from guerdon.rewards import algebra, schedule
from guerdon.rewards.node import MAX_DEPTH, Reward
from guerdon.rewards.oracle import oracle
from guerdon.rewards.worker import load_file

PATH = re.compile(r"[^\s()\[\]{},*+='\"]+\.py:[A-Za-z_]\w*")
"""A reference to a user's own, as it may stand in a text without quotes."""

MAX_LENGTH = 20_000

_QUOTED = re.compile(r".+\.py:[A-Za-z_]\w*")

_STRING_OR_PATH = re.compile(r"""'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*"|""" + f"(?P<path>{PATH.pattern})")
_FUNCTIONS = {f.__name__: f for f in (algebra.min_of, algebra.max_of, algebra.mean_of, oracle)}
_SCHEDULES: dict[str, Callable[..., Any]] = {f.__name__: f for f in (schedule.linear, schedule.constant)}
_METHODS = ("clip", "gate", "otherwise", "at", "pool", "gain", "drop", "normalise", "watch", "named", "shuffled")
_TAKES_REWARD = {("gate", "on"), ("otherwise", "other")}


def parse(text: str, names: Mapping[str, Callable[..., Reward]] | None = None) -> Reward:
    """The reward that ``text`` describes; ``parse(str(reward)) == reward``.

    ``names`` are the factories that may be named (default: the public ones of ``guerdon.rewards.checkers``).

    >>> from guerdon.rewards.node import Reward
    >>> table = {"a": lambda: Reward(name="a"), "b": lambda: Reward(name="b", level="step")}
    >>> parse("a + 0.5*b.clip(0, 1)", table)
    <Sum a + 0.5 * b.clip(0, 1)>
    >>> parse("a.gate(on=c)", table)
    Traceback (most recent call last):
    ...
    guerdon.errors.ExpressionError: reward expression: no reward is called `c`; there are a, b.
      a.gate(on=c)
                ^
    """
    if not isinstance(text, str) or not text.strip():
        raise ExpressionError(f"reward expression: expected text such as 'exact + 0.2 * format', got {text!r}.")
    if len(text) > MAX_LENGTH:
        raise ExpressionError(f"reward expression: at most {MAX_LENGTH} characters, got {len(text)}.")
    flat = re.sub(r"\s", " ", text.strip())
    reader = _Reader(flat, builtin_names() if names is None else names)
    found = reader.value(reader.root(), 0)
    return found if isinstance(found, Reward) else reader.fail(None, f"describes the number {found}, not a reward")


def builtin_names() -> dict[str, Callable[..., Reward]]:
    """name -> factory: everything public in ``guerdon.rewards.checkers``."""
    from guerdon.rewards import checkers  # the checkers are rewards, so they import this package first

    return {name: getattr(checkers, name) for name in checkers.__all__ if callable(getattr(checkers, name))}


class _Reader:
    """One text being read. Methods take nodes of its syntax tree and return rewards, numbers or schedules."""

    def __init__(self, text: str, names: Mapping[str, Callable[..., Reward]]) -> None:
        self.text = text
        self.names = names
        self.paths: dict[str, str] = {}
        self.code = _STRING_OR_PATH.sub(self._stand_in, text)

    def _stand_in(self, match: re.Match[str]) -> str:
        """A path becomes an identifier of the same length, so that places in the text stay where they are."""
        if match["path"] is None:
            return match[0]
        word = f"_{len(self.paths)}".ljust(len(match[0]), "_")
        self.paths[word] = match[0]
        return word

    def root(self) -> ast.expr:
        try:
            return ast.parse(self.code, mode="eval").body
        except SyntaxError as error:
            place = None if error.offset is None else max(error.offset - 1, 0)
            raise self.error(place, f"cannot be read: {error.msg}") from None
        except (RecursionError, MemoryError, ValueError):
            raise self.error(None, "cannot be read: nested too deeply, or not text") from None

    # ---- errors

    def error(self, place: int | None, what: str) -> ExpressionError:
        what = what if what.endswith("?") else f"{what}."
        if place is None:
            return ExpressionError(f"reward expression: {what}\n  {self.text:.200}")
        start = max(0, place - 60)
        shown = ("..." if start else "") + self.text[start : place + 60] + ("..." if place + 60 < len(self.text) else "")
        caret = " " * (place - start + (3 if start else 0)) + "^"
        return ExpressionError(f"reward expression: {what}\n  {shown}\n  {caret}")

    def fail(self, node: ast.AST | None, what: str) -> NoReturn:
        raise self.error(None if node is None else self._place(node), what)

    def _place(self, node: ast.AST) -> int:
        """Index in the text: of a method its name, of an operation its operator, else its start."""
        line = self.code.encode()
        if isinstance(node, ast.Attribute):
            end = len(line[: node.end_col_offset].decode())
            return end - len(node.attr)
        if isinstance(node, ast.BinOp):
            between = len(line[: node.left.end_col_offset].decode())
            return between + len(self.code[between:]) - len(self.code[between:].lstrip(" )"))
        return len(line[: getattr(node, "col_offset", 0)].decode())

    # ---- values

    def value(self, node: ast.expr, depth: int) -> Any:
        if depth > MAX_DEPTH:
            self.fail(node, f"nested more than {MAX_DEPTH} deep")
        match node:
            case ast.Constant(value=bool()):
                self.fail(node, f"expected a reward or a number, got {node.value!r}")
            case ast.Constant(value=int() | float() as number):
                return float(number)
            case ast.Constant(value=str() as quoted) if _QUOTED.fullmatch(quoted):
                return self._own(node, quoted)
            case ast.Name():
                return self._named(node)
            case ast.UnaryOp(op=ast.USub()):
                return -self.value(node.operand, depth + 1)
            case ast.UnaryOp(op=ast.UAdd()):
                return self.value(node.operand, depth + 1)
            case ast.BinOp():
                return self._operation(node, depth)
            case ast.Call():
                return self._call(node, depth)
            case ast.Attribute():
                self.fail(node, f"a method is called with parentheses: .{node.attr}(...)")
        self.fail(node, f"expected a reward, a number, an operator or a method, got `{ast.unparse(node)[:40]}`")

    def reward(self, node: ast.expr, depth: int) -> Reward:
        found = self.value(node, depth)
        return found if isinstance(found, Reward) else self.fail(node, f"expected a reward, got {found}")

    def _operation(self, node: ast.BinOp, depth: int) -> Any:
        left, operators = node, []
        while isinstance(left, ast.BinOp):  # a + b + c + ... leans left: read it without recursion
            operators.append(left)
            left = left.left  # type: ignore[assignment]
        found = self.value(left, depth + 1)
        for operation in reversed(operators):
            right = self.value(operation.right, depth + 1)
            found = self._apply(operation, found, right)
        return found

    def _apply(self, node: ast.BinOp, left: Any, right: Any) -> Any:
        apply = {
            ast.Add: lambda: left + right,
            ast.Sub: lambda: left - right,
            ast.Mult: lambda: left * right,
            ast.Div: lambda: left / right,
        }.get(type(node.op))
        if apply is None:
            self.fail(node, "there are the operators + - * / and no others; powers, comparisons and logic have no meaning here")
        return self._guard(node, apply)

    def _guard(self, node: ast.AST, make: Callable[[], Any]) -> Any:
        """What ``make`` builds, its complaints carrying the place in the text."""
        try:
            return make()
        except TypeError as error:
            self.fail(node, str(error))
        except ZeroDivisionError:
            self.fail(node, "division by zero")
        except GuerdonError as error:
            if str(error).startswith("reward expression:"):
                raise
            self.fail(node, str(error).rstrip("."))

    # ---- names and calls

    def _named(self, node: ast.Name) -> Reward:
        if node.id in self.paths:
            return self._own(node, self.paths[node.id])
        if node.id in self.names:
            return self._guard(node, self.names[node.id])
        known = [*self.names, *_FUNCTIONS, *_SCHEDULES]
        close = difflib.get_close_matches(node.id, known, 3)
        hint = f"did you mean {' or '.join(close)}?" if close else f"there are {', '.join(self.names)}"
        self.fail(node, f"no reward is called `{node.id}`; {hint}")

    def _own(self, node: ast.AST, reference: str) -> Reward:
        return self._guard(node, lambda: load(reference))

    def _call(self, node: ast.Call, depth: int) -> Any:
        called = node.func
        if isinstance(called, ast.Attribute):
            return self._method(node, called, depth)
        if not isinstance(called, ast.Name):
            self.fail(called, "only names and methods can be called")
        if called.id in _FUNCTIONS:
            if node.keywords:
                self.fail(node.keywords[0], f"{called.id} takes rewards, no keyword arguments")
            rewards = [self.reward(a, depth + 1) for a in node.args]
            return self._guard(node, lambda: _FUNCTIONS[called.id](*rewards))
        if called.id in self.paths and (node.args or node.keywords):
            self.fail(called, f"`{self.paths[called.id]}` is a reward of its own and takes no arguments")
        if called.id in self.paths or called.id not in {**self.names, **_SCHEDULES}:
            return self._named(called)
        factory = _SCHEDULES.get(called.id) or self.names[called.id]
        arguments = [self._literal(a) for a in node.args]
        keywords = {self._keyword(k): self._literal(k.value) for k in node.keywords}
        return self._bound(node, called.id, factory, arguments, keywords)

    def _method(self, node: ast.Call, called: ast.Attribute, depth: int) -> Reward:
        if called.attr not in _METHODS:
            close = difflib.get_close_matches(called.attr, _METHODS, 2)
            hint = f"did you mean .{close[0]}(...)?" if close else f"there are {', '.join(_METHODS)}"
            self.fail(called, f"rewards have no method `{called.attr}`; {hint}")
        owner = self.reward(called.value, depth + 1)
        method = getattr(owner, called.attr)
        taken = list(inspect.signature(method).parameters)

        def read(name: str, argument: ast.expr) -> Any:
            return self.reward(argument, depth + 1) if (called.attr, name) in _TAKES_REWARD else self._literal(argument)

        arguments = [read(taken[i] if i < len(taken) else "", a) for i, a in enumerate(node.args)]
        keywords = {self._keyword(k): read(str(k.arg), k.value) for k in node.keywords}
        return self._bound(called, f".{called.attr}", method, arguments, keywords)

    def _bound(self, node: ast.AST, whose: str, function: Callable[..., Any], arguments: list, keywords: dict) -> Any:
        signature = inspect.signature(function)
        try:
            signature.bind(*arguments, **keywords)
        except TypeError as error:
            self.fail(node, f"{whose}{_short(signature)}: {error}")
        return self._guard(node, lambda: function(*arguments, **keywords))

    def _keyword(self, keyword: ast.keyword) -> str:
        return keyword.arg if keyword.arg is not None else self.fail(keyword.value, "** is not allowed")

    def _literal(self, node: ast.expr) -> Any:
        try:
            return ast.literal_eval(node)
        except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
            self.fail(
                node, f"expected a number, a text in quotes, True, False, None or a list of these, got `{ast.unparse(node)[:40]}`"
            )


def _short(signature: inspect.Signature) -> str:
    """The parameters with their defaults, without annotations."""
    bare = [p.replace(annotation=inspect.Parameter.empty) for p in signature.parameters.values()]
    return str(signature.replace(parameters=bare, return_annotation=inspect.Signature.empty))


# ---- a user's own


def load(reference: str) -> Reward:
    """The reward that ``path.py:name`` refers to; a plain function is wrapped as ``@reward`` would."""
    path, _, name = reference.rpartition(":")
    module = _module(path)
    if not hasattr(module, name):
        public = [n for n, x in vars(module).items() if not n.startswith("_") and (callable(x) or isinstance(x, Reward))]
        close = difflib.get_close_matches(name, public, 3) or public[:8]
        raise InputError(f"{path} defines no `{name}`; it has {', '.join(close) or 'no functions'}.")
    found = getattr(module, name)
    if inspect.isfunction(found):
        from guerdon.rewards.function import reward  # needs rewards to exist first

        found = reward(found)
    if not isinstance(found, Reward):
        raise InputError(f"{reference} should be a function or a Reward, got {type(found).__name__}.")
    return found if found.parts else replace(found, reference=reference)


def _module(path: str) -> ModuleType:
    """The module in that file, run once for each content of the file."""
    file = Path(path).expanduser()
    if not file.is_file():
        raise InputError(f"no file {path}; relative paths start at the working directory, {Path.cwd()}.")
    return load_file(str(file.resolve()))
