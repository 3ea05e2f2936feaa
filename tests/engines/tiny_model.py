"""Small models for tests: LLaMA architecture, seeded random weights, a small tokenizer. They are made on demand.

They generate random words and never end by themselves, so that a test decides how many tokens it gets. The same shape
and seed give the same bytes. `python -m tests.engines.tiny_model` prints the path of one.
"""

import argparse
import collections
import hashlib
import itertools
from dataclasses import astuple, dataclass
from pathlib import Path

import gguf
import numpy as np
import numpy.typing as npt

from tests.engines.cache import cached

SPACE = "\u2581"
"""SentencePiece's representation of the space before a word."""

HEADS = 4
MERGES = 420
PRINTABLE = [SPACE, *(chr(code) for code in range(0x21, 0x7F))]
WORDS = """the of and to in is that it for on with as was are this be by from or an at not have has can will which
their its they one all more when who there if what so up out about into than them then some could time other new only
use may these two first any like now such over our even most also after how your work make through being where before
engine model server token slot prompt answer queue worker request stream memory start stop ready health load route
hello world small large north south river mountain light water house garden morning evening letter number order open
close read write send wait run build test check report plan simple clear quick slow early late"""
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'] + eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)

Piece = tuple[str, int, float]
"""Text, type and score of a token."""


@dataclass(frozen=True)
class Shape:
    """Parameters that determine size and speed of a model. `ctx` is the training context in tokens."""

    layers: int = 2
    embd: int = 64
    ctx: int = 2048
    seed: int = 1234


TINY = Shape()
"""0.8 MB, about 6000 tokens/s on one core."""

SLOW = Shape(layers=8, embd=512)
"""110 MB, about 250 tokens/s: slow enough for tests of cancel, drain and queue."""


def tiny_model(shape: Shape = TINY) -> Path:
    """Return the path of a GGUF file with the model of `shape`, which is made once for each machine."""
    recipe = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:8]
    name = "tiny-{}x{}-ctx{}-seed{}".format(*astuple(shape))
    return cached(f"{name}-{recipe}.gguf", lambda draft: write_model(shape, draft))


def write_model(shape: Shape, path: Path) -> None:
    pieces = _vocabulary()
    writer = gguf.GGUFWriter(path, "llama")
    _describe(writer, shape, len(pieces))
    _add_tokenizer(writer, pieces)
    for name, values in _tensors(shape, pieces):
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _describe(writer: gguf.GGUFWriter, shape: Shape, vocabulary: int) -> None:
    writer.add_name("tiny-random")
    writer.add_description("seeded random weights, for tests only")
    writer.add_context_length(shape.ctx)
    writer.add_embedding_length(shape.embd)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.embd * 3)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(shape.embd // HEADS)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(vocabulary)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)


def _add_tokenizer(writer: gguf.GGUFWriter, pieces: list[Piece]) -> None:
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([text for text, _kind, _score in pieces])
    writer.add_token_scores([score for _text, _kind, score in pieces])
    writer.add_token_types([kind for _text, kind, _score in pieces])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(False)
    writer.add_chat_template(CHAT_TEMPLATE)


def _vocabulary() -> list[Piece]:
    """Return control tokens, all bytes, pieces of words, and single characters, in this order."""
    controls = ["<s>", "</s>", "<|user|>", "<|assistant|>", "<|system|>"]
    pieces: list[Piece] = [("<unk>", int(gguf.TokenType.UNKNOWN), 0.0)]
    pieces += [(text, int(gguf.TokenType.CONTROL), 0.0) for text in controls]
    pieces += [(f"<0x{byte:02X}>", int(gguf.TokenType.BYTE), 0.0) for byte in range(256)]
    generated = [*_byte_pairs(WORDS.split(), MERGES), *PRINTABLE]
    return pieces + [(text, int(gguf.TokenType.NORMAL), float(-rank)) for rank, text in enumerate(generated)]


def _byte_pairs(words: list[str], merges: int) -> list[str]:
    """Return the pieces that `merges` rounds of byte pair encoding find in `words`, most frequent first."""
    corpus = collections.Counter(tuple(SPACE + word) for word in words)
    found: list[str] = []
    for _round in range(merges):
        pairs = collections.Counter[tuple[str, str]]()
        for parts, count in corpus.items():
            for pair in itertools.pairwise(parts):
                pairs[pair] += count
        if not pairs:
            break
        best, _count = min(pairs.items(), key=lambda item: (-item[1], item[0]))
        found.append("".join(best))
        corpus = _merged(corpus, best)
    return list(dict.fromkeys(found))


def _merged(
    corpus: collections.Counter[tuple[str, ...]], pair: tuple[str, str]
) -> collections.Counter[tuple[str, ...]]:
    joined = collections.Counter[tuple[str, ...]]()
    for parts, count in corpus.items():
        row: list[str] = []
        rest = list(parts)
        while rest:
            width = 2 if tuple(rest[:2]) == pair else 1
            row.append("".join(rest[:width]))
            del rest[:width]
        joined[tuple(row)] += count
    return joined


class _Random:
    """Seeded normally distributed numbers in single precision."""

    def __init__(self, seed: int) -> None:
        self._generator = np.random.default_rng(seed)

    def __call__(self, *size: int, scale: float) -> npt.NDArray[np.float32]:
        return (self._generator.standard_normal(size) * scale).astype(np.float32)


def _tensors(shape: Shape, pieces: list[Piece]) -> list[tuple[str, npt.NDArray[np.float32]]]:
    """Return all weights.

    Dimension 0 is a bias channel. It is 2 in every embedding and strongly negative in the output rows of control tokens
    and bytes, so that these are never generated.
    """
    random = _Random(shape.seed)
    silent = len(pieces) - sum(kind == gguf.TokenType.NORMAL for _text, kind, _score in pieces)
    embedding = random(len(pieces), shape.embd, scale=0.6)
    embedding[:, 0] = 2.0
    output = random(len(pieces), shape.embd, scale=0.6)
    output[:, 0] = 0.0
    output[:silent] = 0.0
    output[:silent, 0] = -12.0
    blocks = [tensor for index in range(shape.layers) for tensor in _block(random, index, shape.embd)]
    ones = np.ones(shape.embd, np.float32)
    return [("token_embd.weight", embedding), *blocks, ("output_norm.weight", ones), ("output.weight", output)]


def _block(random: _Random, index: int, width: int) -> list[tuple[str, npt.NDArray[np.float32]]]:
    inner = width * 3
    scale = width**-0.5
    tensors = {"attn_norm": np.ones(width, np.float32), "ffn_norm": np.ones(width, np.float32)}
    for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
        tensors[name] = random(width, width, scale=scale)
    for name in ("ffn_gate", "ffn_up"):
        tensors[name] = random(inner, width, scale=scale)
    tensors["ffn_down"] = random(width, inner, scale=inner**-0.5)
    # keep the bias channel unchanged
    tensors["attn_output"][0] = 0
    tensors["ffn_down"][0] = 0
    return [(f"blk.{index}.{name}.weight", values) for name, values in tensors.items()]


def main() -> None:
    """Make a model, or print the path of the existing one."""
    parser = argparse.ArgumentParser(prog="tiny_model", description="Make a small random LLaMA model (GGUF).")
    parser.add_argument("--out", type=Path, help="write the model to this file instead of the cache")
    parser.add_argument("--layers", type=int, default=TINY.layers)
    parser.add_argument("--embd", type=int, default=TINY.embd, help="embedding width, a multiple of 8")
    parser.add_argument("--ctx", type=int, default=TINY.ctx, help="context in tokens")
    parser.add_argument("--seed", type=int, default=TINY.seed)
    options = parser.parse_args()
    shape = Shape(options.layers, options.embd, options.ctx, options.seed)
    if options.out:
        write_model(shape, options.out)
    print(options.out or tiny_model(shape))


if __name__ == "__main__":
    main()
