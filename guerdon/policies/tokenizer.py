# SPDX-License-Identifier: Apache-2.0
"""A small tokenizer from a list of tokens, in the format that ``AutoTokenizer`` loads; needs ``guerdon[language]``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from guerdon.errors import InputError

SPECIAL = {"pad_token": "<pad>", "bos_token": "<bos>", "eos_token": "<eos>", "unk_token": "<unk>"}


def word_tokenizer(tokens: Sequence[str], *, chat_template: str | None = None, special: Sequence[str] = ()) -> Any:
    """A tokenizer whose vocabulary is ``tokens``; text is cut into the longest token that fits, from left to right.

    ids 0..3 are ``<pad> <bos> <eos> <unk>``, then ``special`` (markers of a chat template, not part of decoded text), then
    ``tokens``. A text is preceded by ``<bos>``; decoding joins the tokens without spaces.

    >>> tokenizer = word_tokenizer([*"0123456789:", *(f"+{d}" for d in range(10))])
    >>> tokenizer.tokenize("5+8+4:"), tokenizer.decode(tokenizer("5+8:").input_ids, skip_special_tokens=True)
    (['5', '+8', '+4', ':'], '5+8:')
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = [*SPECIAL.values(), *special, *tokens]
    doubled = sorted({t for t in vocabulary if vocabulary.count(t) > 1})
    if doubled or "" in vocabulary:
        raise InputError(
            f"word_tokenizer: expected different, non-empty tokens, got {doubled or ['']} more than once or empty. "
            f"Usual cause: a token listed twice, or one of {', '.join(SPECIAL.values())}, which are added."
        )
    inner = Tokenizer(models.WordLevel({t: i for i, t in enumerate(vocabulary)}, unk_token=SPECIAL["unk_token"]))
    longest_first = "|".join(re.escape(t) for t in sorted(tokens, key=len, reverse=True))
    inner.pre_tokenizer = pre_tokenizers.Split(Regex(longest_first), behavior="isolated")
    inner.decoder = decoders.Fuse()
    bos = SPECIAL["bos_token"]
    inner.post_processor = processors.TemplateProcessing(single=f"{bos} $A", pair=f"{bos} $A $B", special_tokens=[(bos, 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        chat_template=chat_template,
        clean_up_tokenization_spaces=False,
        extra_special_tokens=list(special),
        **SPECIAL,
    )
