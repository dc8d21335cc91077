"""Near-duplicates among documents: MinHash over token shingles, found by banding."""

import re
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator

import numpy as np
from jaxtyping import UInt64

_TOKEN = re.compile(r"\w+|[^\w\s]")
_SHINGLE = 5
_PERMUTATIONS = 128
_BAND = 4  # rows per band: 32 bands, so pairs above a Jaccard index of about 0.42 become candidates
_MIX = np.uint64(0x9E3779B97F4A7C15)


def shingle_hashes(text: str) -> UInt64[np.ndarray, " shingle"]:
    """The distinct hashes of all runs of five tokens of a text, sorted."""
    tokens = [zlib.crc32(token.encode()) for token in _TOKEN.findall(text)]
    tokens += [0] * (_SHINGLE - len(tokens))
    codes = np.array(tokens, dtype=np.uint64)
    count = len(codes) - _SHINGLE + 1
    hashes = np.zeros(count, dtype=np.uint64)
    for offset in range(_SHINGLE):
        hashes = (hashes ^ codes[offset : offset + count]) * _MIX
        hashes ^= hashes >> np.uint64(29)
    return np.unique(hashes)


def minhash(text: str) -> UInt64[np.ndarray, " permutation"]:
    """The MinHash signature of a text.

    The share of equal entries of two signatures estimates the Jaccard index of the two sets of
    shingles, with a standard error of at most 0.045.
    """
    rng = np.random.default_rng(0)
    factors = rng.integers(1, 2**63, _PERMUTATIONS, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    offsets = rng.integers(0, 2**63, _PERMUTATIONS, dtype=np.uint64)
    hashes = shingle_hashes(text)
    signature = np.empty(_PERMUTATIONS, dtype=np.uint64)
    for index in range(_PERMUTATIONS):
        mixed = hashes * factors[index] + offsets[index]
        signature[index] = (mixed ^ (mixed >> np.uint64(32))).min()
    return signature


def distinct(texts: Iterable[str], threshold: float = 0.5) -> Iterator[int]:
    """The indices of the texts that resemble no text kept before them.

    Args:
        texts: The documents, in order of preference.
        threshold: The estimated Jaccard index (0 to 1) from which a text is a near-duplicate.
    """
    kept: list[UInt64[np.ndarray, " permutation"]] = []
    buckets: dict[tuple[int, bytes], list[int]] = defaultdict(list)
    for index, text in enumerate(texts):
        signature = minhash(text)
        keys = [(i, signature[i : i + _BAND].tobytes()) for i in range(0, _PERMUTATIONS, _BAND)]
        candidates = {other for key in keys for other in buckets.get(key, ())}
        if any(np.mean(kept[other] == signature) >= threshold for other in candidates):
            continue
        for key in keys:
            buckets[key].append(len(kept))
        kept.append(signature)
        yield index
