"""Toy tokenizers and models: small, exact, and made without a download."""

from itertools import count

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

SPECIAL = ("<pad>", "<s>", "</s>", "<mask>")  # ids 0 to 3


def byte_tokenizer(*, bos: bool = True, words: tuple[str, ...] = ()) -> PreTrainedTokenizerFast:
    """A token a byte, and one token for each of `words` (" great") and its beginnings of two bytes or more.

    Ids: the special tokens; byte b is 4 + b; 260 and up for the words. bos: <s> goes before a text.
    """
    letters = _letters()
    vocabulary = {token: i for i, token in enumerate([*SPECIAL, *letters])}
    merges: list[tuple[str, str]] = []
    for word in words:
        pieces = [letters[b] for b in word.encode()]
        for end in range(1, len(pieces)):
            left, right = "".join(pieces[:end]), pieces[end]
            if left + right not in vocabulary:
                vocabulary[left + right] = len(vocabulary)
                merges.append((left, right))
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in SPECIAL])
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>", mask_token="<mask>"
    )


def _letters() -> list[str]:
    """The letter of each byte in byte-level BPE: printable bytes are themselves, the others U+0100 and up."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = count(256)
    return [chr(b) if b in printable else chr(next(others)) for b in range(256)]
