# SPDX-License-Identifier: Apache-2.0
"""Which characters of a text each of its tokens wrote."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Span = tuple[int, int]


class Decoder:
    """Decodes tokens with their character spans; special tokens write nothing, whatever the tokenizer calls them."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.pieces: dict[int, str] = {}

    def text(self, ids: Sequence[int]) -> str:
        return self.tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)

    def spans(self, ids: Sequence[int]) -> tuple[str, list[Span]]:
        """The text of ``ids`` and, for every token, (start, end) of the characters it wrote; (k, k) where it wrote none.

        A character made of several tokens belongs to the one that completes it.
        """
        text = self.text(ids)
        pieces = [self._piece(i) for i in ids]
        if "".join(pieces) != text:  # the tokenizer joins with spaces, strips, or splits characters
            pieces = self._grown(ids, window=True)
        if "".join(pieces) != text:  # and what a token writes depends on those far before it
            pieces = self._grown(ids, window=False)
        spans, at = [], 0
        for piece in pieces:
            spans.append((at, at + len(piece)))
            at += len(piece)
        return text, spans

    def _piece(self, token: int) -> str:
        if token not in self.pieces:
            self.pieces[token] = self.text([token])
        return self.pieces[token]

    def _grown(self, ids: Sequence[int], *, window: bool) -> list[str]:
        """What each token adds to the text of those before it: of the last few that wrote (``window``), or of all."""
        pieces: list[str] = []
        base = read = 0  # the tokens of base..read are the window, already written
        for k in range(len(ids)):
            before, now = self.text(ids[base:read]), self.text(ids[base : k + 1])
            # The beginning of a character decodes to a replacement mark until the rest of its bytes is there.
            if len(now) <= len(before) or (now.endswith("\ufffd") and k + 1 < len(ids)):
                pieces.append("")
            else:
                pieces.append(now[len(before) :])
                base, read = (read if window else 0), k + 1
        return pieces
