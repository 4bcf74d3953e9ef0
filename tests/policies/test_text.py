# SPDX-License-Identifier: Apache-2.0
import itertools

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from guerdon.errors import InputError
from guerdon.policies.text import Decoder
from guerdon.policies.tokenizer import word_tokenizer


def bytes_tokenizer():
    """One token per byte, so that most characters outside ASCII are several tokens; <e> is special."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner = Tokenizer(models.BPE({c: i for i, c in enumerate(alphabet)}, []))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    inner.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<e>", clean_up_tokenization_spaces=False)


def spaced_tokenizer():
    """SentencePiece's way: a word begins with ▁, which a decoder drops from the first."""
    words = ["▁the", "▁cat", "s", "▁sat", "<e>"]
    inner = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="s"))
    inner.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<e>", clean_up_tokenization_spaces=False)


def test_a_character_of_several_tokens_belongs_to_the_one_that_completes_it():
    tokenizer = bytes_tokenizer()
    ids = [*tokenizer("aé🙂b").input_ids, tokenizer.eos_token_id]
    text, spans = Decoder(tokenizer).spans(ids)
    assert text == "aé🙂b"
    assert spans == [(0, 1), (1, 1), (1, 2), (2, 2), (2, 2), (2, 2), (2, 3), (3, 4), (4, 4)]


def test_bytes_that_make_no_character_are_in_the_text_once():
    tokenizer = bytes_tokenizer()
    smile = tokenizer("🙂").input_ids
    for ids in (smile[:2], [*smile[:2], *tokenizer("a").input_ids], [*smile[:3], *smile]):
        text, spans = Decoder(tokenizer).spans(ids)
        assert text == tokenizer.decode(ids)
        assert spans[-1][1] == len(text)
        assert all(a[1] == b[0] for a, b in itertools.pairwise(spans))


def test_words_that_bring_their_space():
    text, spans = Decoder(spaced_tokenizer()).spans([0, 1, 2, 3, 4])
    assert text == "the cats sat"
    assert [text[a:b] for a, b in spans] == ["the", " cat", "s", " sat", ""]


def test_long_texts_are_decoded_in_windows():
    tokenizer = bytes_tokenizer()
    ids = tokenizer("é" * 300).input_ids
    decoder, longest = Decoder(tokenizer), []
    whole = decoder.text
    decoder.text = lambda x: longest.append(len(x)) or whole(x)
    _, spans = decoder.spans(ids)
    assert spans[-1] == (299, 300)
    assert sorted(longest)[-2] <= 8  # all calls but the first


def test_the_word_tokenizer_survives_saving_and_cuts_the_longest_token_that_fits(tmp_path):
    tokens = ["+", "1", "+1", "12", "."]
    tokenizer = word_tokenizer(tokens, special=["<turn>"], chat_template="{{ messages[0].content }}")
    tokenizer.save_pretrained(tmp_path)
    for t in (tokenizer, AutoTokenizer.from_pretrained(tmp_path)):
        assert t.tokenize("+12.<turn>12+") == ["+1", "<unk>", ".", "<turn>", "12", "+"]
        assert t("12").input_ids == [t.bos_token_id, t.convert_tokens_to_ids("12")]
        assert t.decode(t("+1.12").input_ids, skip_special_tokens=True) == "+1.12"
        assert (t.pad_token_id, t.bos_token_id, t.eos_token_id, t.unk_token_id) == (0, 1, 2, 3)
        assert t.apply_chat_template([{"role": "user", "content": "1"}], tokenize=False) == "1"


@pytest.mark.parametrize("tokens", [["a", "a"], ["<eos>"], ["a", ""]])
def test_a_vocabulary_that_cannot_be_is_refused(tokens):
    with pytest.raises(InputError, match="different, non-empty"):
        word_tokenizer(tokens)
