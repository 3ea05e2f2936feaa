"""The model of the demo: a table of word transitions in the format of a LLaMA model. It is made in about 3 s.

The logarithms of the transition frequencies are factored (truncated singular value decomposition) into token embeddings
and output weights; the weights of the transformer block between them are zero. The model writes sentences that resemble
the documentation of this project but have little meaning. It avoids a download.
"""

import collections
from collections.abc import Sequence
from pathlib import Path

import gguf
import numpy as np
import numpy.typing as npt

SPACE = "\u2581"
SPECIAL = ("<unk>", "<s>", "</s>")
UNK, BOS, EOS = range(3)
RANK = 320
WIDTH = 384
HEADS = 4
CONTEXT = 4096
WORDS = 1200
UNSEEN = -9.0
"""Log probability of a transition that does not occur in the corpus."""

Matrix = npt.NDArray[np.float32]


def make(path: Path, sentences: Sequence[Sequence[str]]) -> None:
    """Train a model on `sentences` and write it to `path` atomically."""
    vocabulary = _vocabulary(sentences)
    embeddings, output = _factored(_log_transitions(sentences, vocabulary))
    draft = path.with_suffix(".draft")
    _write(draft, list(vocabulary), embeddings, output)
    draft.replace(path)


def _piece(word: str) -> str:
    return SPACE + word if word[0].isalpha() else word


def _vocabulary(sentences: Sequence[Sequence[str]]) -> dict[str, int]:
    """Return the ids of the tokens: special tokens, bytes, characters, and the most frequent words with all prefixes.

    The tokenizer merges adjacent pieces into longer tokens, and can form a word only if all its prefixes are tokens.
    """
    counts = collections.Counter(_piece(word) for sentence in sentences for word in sentence)
    pieces = [*SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256)), SPACE, *map(chr, range(0x21, 0x7F))]
    for piece, _count in counts.most_common(WORDS):
        pieces += [piece[:end] for end in range(2, len(piece) + 1)]
    return {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}


def _log_transitions(sentences: Sequence[Sequence[str]], vocabulary: dict[str, int]) -> Matrix:
    table = np.full((len(vocabulary), len(vocabulary)), 0.0, np.float32)
    for sentence in sentences:
        numbers = [vocabulary.get(_piece(word), UNK) for word in sentence]
        for this, following in zip([BOS, *numbers], [*numbers, EOS], strict=True):
            table[this, following] += 1
    start = table[BOS].copy()
    for mark in ".?!":  # a sentence is followed by another one, or by the end
        table[vocabulary[mark]] = 0.85 * start / start.sum()
        table[vocabulary[mark], EOS] = 0.15
    table[:, UNK] = 0
    totals = table.sum(axis=1, keepdims=True)
    table[totals[:, 0] == 0] = start
    with np.errstate(divide="ignore"):
        logarithms = np.log(table / table.sum(axis=1, keepdims=True))
    shifted: Matrix = np.maximum(logarithms, UNSEEN) - np.float32(UNSEEN)
    return shifted


def _factored(table: Matrix) -> tuple[Matrix, Matrix]:
    """Return embeddings and output weights whose product approximates `table`.

    The model divides an embedding by its length (RMS norm). All embeddings therefore have the same length: shorter ones
    are extended in an extra dimension.
    """
    rng = np.random.default_rng(0)
    sketch, _ = np.linalg.qr(table @ rng.standard_normal((table.shape[1], RANK + 32)).astype(np.float32))
    for _turn in range(3):
        sketch, _ = np.linalg.qr(table @ (table.T @ sketch))
    left, values, right = np.linalg.svd(sketch.T @ table, full_matrices=False)
    rows = (sketch @ left)[:, :RANK] * np.sqrt(values[:RANK])
    columns = right[:RANK].T * np.sqrt(values[:RANK])
    lengths = np.linalg.norm(rows, axis=1)
    longest = float(np.max(lengths)) + 1
    embeddings = np.zeros((len(table), WIDTH), np.float32)
    output = np.zeros((len(table), WIDTH), np.float32)
    embeddings[:, :RANK], embeddings[:, RANK] = rows, np.sqrt(longest**2 - lengths**2)
    output[:, :RANK] = columns * (longest / np.sqrt(WIDTH))
    return embeddings, output


def _write(path: Path, pieces: list[str], embeddings: Matrix, output: Matrix) -> None:
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("llama-orch demo")
    writer.add_description("word transitions of the documentation of llama-orch")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(1)
    writer.add_feed_forward_length(WIDTH)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    _add_tokenizer(writer, pieces)
    _add_tensors(writer, embeddings, output)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_tokenizer(writer: gguf.GGUFWriter, pieces: list[str]) -> None:
    kinds = [gguf.TokenType.UNKNOWN, gguf.TokenType.CONTROL, gguf.TokenType.CONTROL]
    kinds += [gguf.TokenType.BYTE] * 256
    kinds += [gguf.TokenType.NORMAL] * (len(pieces) - len(kinds))
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(pieces)
    writer.add_token_scores([float(-number) for number in range(len(pieces))])
    writer.add_token_types(kinds)
    writer.add_bos_token_id(BOS)
    writer.add_eos_token_id(EOS)
    writer.add_unk_token_id(UNK)
    writer.add_add_bos_token(True)
    writer.add_chat_template("{{ bos_token }}{% for m in messages %}{{ m['content'] }} {% endfor %}")


def _add_tensors(writer: gguf.GGUFWriter, embeddings: Matrix, output: Matrix) -> None:
    square, ones = np.zeros((WIDTH, WIDTH), np.float32), np.ones(WIDTH, np.float32)
    writer.add_tensor("token_embd.weight", embeddings.astype(np.float16))
    writer.add_tensor("output_norm.weight", ones)
    writer.add_tensor("output.weight", output.astype(np.float16))
    for name in ("attn_norm", "ffn_norm"):
        writer.add_tensor(f"blk.0.{name}.weight", ones)
    for name in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"):
        writer.add_tensor(f"blk.0.{name}.weight", square)
