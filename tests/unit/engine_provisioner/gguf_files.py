"""Small valid GGUF files."""

import random
import struct


def text(value: bytes) -> bytes:
    return struct.pack("<Q", len(value)) + value


def header(weights: int) -> bytes:
    """Return the header of a GGUF file with one tensor of `weights` bytes, a multiple of 32."""
    keys = text(b"general.architecture") + struct.pack("<I", 8) + text(b"llama")
    keys += text(b"tokens") + struct.pack("<IIQ", 9, 8, 2) + text(b"a") + text(b"b")
    tensor = text(b"t") + struct.pack("<IQIQ", 1, weights, 24, 0)
    content = b"GGUF" + struct.pack("<IQQ", 3, 1, 2) + keys + tensor
    return content + bytes(-len(content) % 32)


def gguf(size: int = 4096, seed: int = 1) -> bytes:
    """Return a GGUF file with one tensor of random bytes, of at least `size` bytes altogether."""
    weights = max(32, -(-size // 32) * 32)
    return header(weights) + random.Random(seed).randbytes(weights)
