# SPDX-License-Identifier: Apache-2.0
import hashlib

from guerdon.tasks import task_key


def test_key_is_the_documented_hash() -> None:
    assert task_key("2 + 2 =", "4") == hashlib.sha256(b'["2 + 2 =","4"]').hexdigest()[:16]


def test_key_tells_apart_prompt_answer_and_their_types() -> None:
    contents = [("a", "b"), ("b", "a"), ("ab", ""), ("a", None), ("a", 1), ("a", "1"), ("a", ["1"]), ("é", "b"), ("e", "b")]
    assert len({task_key(*content) for content in contents}) == len(contents)


def test_key_reads_the_order_of_messages_but_not_of_their_names() -> None:
    first, second = {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}
    assert task_key([first, second]) == task_key([dict(reversed(first.items())), second])
    assert task_key([first, second]) != task_key([second, first])
