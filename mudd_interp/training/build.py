"""Rebuild the bundled data files: manifest, tokenizer, validation pack.

A maintainer runs ``python -m mudd_interp.training.build`` after the pinned versions have changed.
"""

import numpy as np

from mudd_interp.training.corpus import (
    MANIFEST,
    build_manifest,
    read_corpus,
    read_manifest,
    write_manifest,
)
from mudd_interp.training.packing import packed_split
from mudd_interp.training.tokenizer import save_trained_tokenizer, train_tokenizer
from mudd_interp.training.validation import draw_pack, save_pack

TRAIN_BYTES, VALIDATION_BYTES = 52_000_000, 1_700_000


def build() -> None:
    """Write the three data files of ``mudd_interp/bundled``."""
    write_manifest(MANIFEST, build_manifest(TRAIN_BYTES, VALIDATION_BYTES))
    training = [source for source in read_manifest() if source.split == "train"]
    save_trained_tokenizer(train_tokenizer(text for _, text in read_corpus(training)))
    save_pack(draw_pack(packed_split("validation"), np.random.default_rng(0)))


if __name__ == "__main__":
    build()
