"""Tokens of one-token answers after a prefill, found with the tokenizer itself."""

from typing import Any

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from dynalign_contract.errors import BadInputError
from dynalign_trainer.models.choices import DIGITS, LETTERS, choice_tokens


def tokenizer(*merges: tuple[str, str]) -> Any:
    """Byte-level, one token a byte but for these merges."""
    pieces = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *(a + b for a, b in merges)]
    core = Tokenizer(models.BPE(vocab={piece: i for i, piece in enumerate(pieces)}, merges=list(merges)))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return PreTrainedTokenizerFast(tokenizer_object=core)


def test_digits_follow_the_prefill() -> None:
    plain = tokenizer()
    assert list(DIGITS.tokens(plain, "Score: ")) == plain.convert_tokens_to_ids(list("0123456789"))


def test_a_digit_that_swallows_the_space_is_refused() -> None:
    with pytest.raises(BadInputError, match=r"cannot write '7' as exactly one token after the prefill 'Score: '"):
        DIGITS.tokens(tokenizer(("Ġ", "7")), "Score: ")
    assert len(DIGITS.tokens(tokenizer(("Ġ", "7")), "Score:")) == 10


def test_choices_of_several_tokens_are_refused() -> None:
    with pytest.raises(BadInputError, match=r"cannot write 'AB'.*Change the objective's prefill"):
        choice_tokens(tokenizer(), "Answer: ", ["A", "AB"])


def test_choices_must_differ() -> None:
    with pytest.raises(BadInputError, match="with the same token"):
        choice_tokens(tokenizer(), "Answer: ", ["A", "A"])


def test_a_letter_takes_the_space_that_the_prefill_leaves() -> None:
    merged = tokenizer(("Ġ", "A"), ("Ġ", "B"))
    assert list(LETTERS.tokens(merged, "Better:")) == merged.convert_tokens_to_ids(["ĠA", "ĠB"])
    assert list(LETTERS.tokens(tokenizer(), "Better: ")) == tokenizer().convert_tokens_to_ids(["A", "B"])
    with pytest.raises(BadInputError, match="its last space"):
        LETTERS.tokens(merged, "Better: ")
