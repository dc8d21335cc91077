"""What to say of a ``config.json`` of an architecture that nothing here knows."""

import difflib
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from mudd_interp.axes import short
from mudd_interp.checkpoints.layouts import LAYOUTS
from mudd_interp.model.backed import KINDS

WIRED_LIKE: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "hc_mult": ("hyper-connections", ("deepseek_v4", "hy_v4", "mhc_lite_gpt")),
    "attn_res_block_size": ("attention residuals", ("qwen3_attnres",)),
}
"""Fields that tell how a model is wired, whatever it is called: in words, and who is wired so."""


def unknown_type(folder: Path, config: Mapping[str, Any], known: Collection[str]) -> str:
    """The message for a ``model_type`` that is not known: the nearest, and what to give instead.

    Args:
        folder: Where the configuration is.
        config: What it says.
        known: Every ``model_type`` that transformers knows.
    """
    kind = short(config["model_type"])
    if "auto_map" in config:
        what = (
            f"the model in {folder} (model_type {kind!r}) needs code that comes with it (auto_map "
            "in its config.json), and mudd-interp never runs such code."
        )
    else:
        what = (
            f"the config.json in {folder} has model_type {kind!r}, which the installed "
            "transformers does not know, nor does mudd-interp."
        )
    every = {*LAYOUTS, *known}
    near = nearest(kind, every)
    found = [f"The nearest that is known by its name: {', '.join(near)}."] if near else []
    for field, (words, others) in WIRED_LIKE.items():
        if field in config:
            like = ", ".join(other for other in others if other in every)
            found.append(f"Its `{field}` is of {words}, which {like} have too.")
    instead = (
        "Give a folder of a model that is known, or install a newer transformers if that has this "
        f"one. mudd-interp itself reads {', '.join((*LAYOUTS, *KINDS))}."
    )
    return " ".join([what, *found, instead])


def nearest(kind: str, known: Collection[str]) -> list[str]:
    """The three names of its family that are most alike, or else any that are close."""
    family = _family(kind)
    relatives = [name for name in known if family and _family(name) == family]
    return difflib.get_close_matches(kind, sorted(relatives), n=3, cutoff=0) or (
        difflib.get_close_matches(kind, sorted(known), n=3, cutoff=0.8)
    )


def _family(kind: str) -> str:
    """The letters that a name begins with: ``deepseek`` of ``deepseek_v4``."""
    found = re.match(r"[a-z]+", kind.casefold())
    return found.group() if found else ""
