"""The figures of the catalogue by what they require of a model."""

from mudd_interp.catalog import FIGURES

OF_IMAGES = [name for name, kind in FIGURES.items() if "images" in kind.requires]
OF_STREAMS = ["stream_mixing", "stream_weights", "stream_lens"]
"""Those of hyper-connections alone."""
OF_ANY = [name for name in FIGURES if name not in (*OF_IMAGES, *OF_STREAMS)]
"""Those that a model of text can have."""
