"""FFN widths as the paper sets them, and how large a size may be."""

MOST_LAYERS = 2**12

LARGEST_SIZE = 2**31 - 1
"""The largest width, vocabulary or context."""


def reallocate(d_mlp: int, n_layers: int, multiple_of: int = 128) -> tuple[int, ...]:
    """FFN widths that grow over depth from 0.5 to 1.5 times ``d_mlp`` (paper, section 2.6).

    Args:
        d_mlp: Mean width, in neurons.
        n_layers: Number of blocks. A single block keeps ``d_mlp``.
        multiple_of: Widths are rounded (half to even) to a multiple of this, 128 in the released
            code; rounding may change the total.
    """
    if n_layers == 1:
        return (d_mlp,)
    widths = [d_mlp * (layer / (n_layers - 1) + 0.5) for layer in range(n_layers)]
    return tuple(round(width / multiple_of) * multiple_of for width in widths)


def swiglu_width(d_model: int) -> int:
    """Width of a SwiGLU layer: 8/3 of ``d_model``, rounded up to a multiple of 256 (Table 2)."""
    width = int(8 * d_model / 3)
    return -(-width // 256) * 256
