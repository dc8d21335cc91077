"""The vocabulary: streams, axis names, and the functions that spell hook names.

Every shape annotation, einsum and data frame in the package uses the words below; every hook
name is spelled by a function of this module and nowhere else.

Axes of tensors (jaxtyping strings)
    ``batch``, ``pos`` (also ``query`` and ``key`` where both occur), ``head``, ``kv_head``,
    ``d_head``, ``d_model``, ``d_mlp``, ``d_vocab``, ``stream``, ``source``.

Numbering
    Layers are 0-based blocks. ``X_0`` is the embedding and ``X_j`` the output of block ``j - 1``.
    Aggregation ``i`` follows block ``i``, sees the sources ``0..i+1`` and feeds block ``i + 1``;
    the last one feeds the final norm and has stream ``r`` only. (The paper's DA index is ``i+1``.)
"""

import difflib
import re
from collections.abc import Iterable
from typing import Literal

Stream = Literal["q", "k", "v", "r"]

STREAMS: tuple[Stream, ...] = ("q", "k", "v", "r")
"""The four input streams of a block: query, key, value, residual. Always in this order."""

STREAM_NAMES: dict[Stream, str] = {"q": "query", "k": "key", "v": "value", "r": "residual"}

Sublayer = Literal["attn", "mlp"]

END_OF_TEXT = "<|endoftext|>"
"""The token that stands before each document, in the models of this project and in Pythia."""

EMBED = "hook_embed"
"""``[batch pos d_model]``: X_0, the token embedding."""

RESID_FINAL = "hook_resid_final"
"""``[batch pos d_model]``: the last aggregate, before ``ln_final``."""


def stream_input(layer: int, stream: Stream) -> str:
    """Name of the hook on a stream as it enters a block, before norms: ``[batch pos d_model]``."""
    return resid_pre(layer) if stream == "r" else block(layer, f"hook_{stream}_input")


def resid_pre(layer: int) -> str:
    """Name of the hook on the R stream as it enters a block: ``[batch pos d_model]``."""
    return block(layer, "hook_resid_pre")


def resid_post(layer: int) -> str:
    """Name of the hook on a block's output, X_{layer+1}: ``[batch pos d_model]``."""
    return block(layer, "hook_resid_post")


def source_output(source: int) -> str:
    """Name of the hook on X_source: the embedding, or the output of block ``source - 1``."""
    return EMBED if source == 0 else resid_post(source - 1)


def normed_source(source: int) -> str:
    """Name of the hook on X_source after its pre-norm (PrePostDANorm only)."""
    return f"dense_pre_norms.{source}.hook_out"


FIRST_ROW = "first"
"""The place of what block 0 takes of X_0 among aggregations, where that is not one."""


def dense_weights(aggregation: int, stream: Stream) -> str:
    """Name of the hook on the weights that multiply the sources: ``[batch pos source]``.

    Aggregation -1 is that in front of block 0: :data:`FIRST_ROW`.
    """
    place = FIRST_ROW if aggregation == -1 else aggregation
    return f"dense.{place}.hook_weights_{stream}"


def source_scale(source: int) -> str:
    """Name of the hook on the scale of a source's pre-norm (PrePostDANorm only)."""
    return f"dense_pre_norms.{source}.hook_scale"


def aggregate_scale(aggregation: int, stream: Stream) -> str:
    """Name of the hook on the scale of an aggregate's norm (PrePostDANorm only)."""
    return f"dense.{aggregation}.post_norms.{stream}.hook_scale"


def norm_scale(layer: int, norm: str) -> str:
    """Name of the hook on the scale of a norm of a block, e.g. ``norm_scale(3, "ln1_q")``."""
    return block(layer, f"{norm}.hook_scale")


def attn_out(layer: int) -> str:
    """Name of the hook on what the attention of a block wrote: ``[batch pos d_model]``."""
    return block(layer, "hook_attn_out")


def mlp_out(layer: int) -> str:
    """Name of the hook on what the FFN of a block wrote: ``[batch pos d_model]``."""
    return block(layer, "hook_mlp_out")


FINAL_SCALE = "ln_final.hook_scale"
"""``[batch pos 1]``: the scale of the final norm."""


def final_row(row: int) -> str:
    """Name of the hook on one of several streams that the head norms one by one."""
    return f"{RESID_FINAL}.{row}"


def final_row_scale(row: int) -> str:
    """Name of the hook on the scale of the final norm of one of several streams."""
    return f"ln_final.each.{row}.hook_scale"


HEAD_GATE = "hyper.head.hook_pre"
"""``[batch pos stream]``: what the head reads of each stream, where that is gated."""

HEAD_STREAMS = "hyper.head.hook_streams"
"""``[batch pos stream d_model]``: the streams in front of a gated head."""


def hyper(sublayer: int, name: str) -> str:
    """Name of a hook on the streams in front of a sublayer, or on one of its gates.

    Sublayers are counted in the order of depth: ``hyper(3, "hook_pre")`` is
    ``hyper.1.mlp.hook_pre``. ``hook_streams`` is ``[batch pos stream d_model]``; ``hook_pre`` and
    ``hook_post`` are ``[batch pos stream]``, what the sublayer reads of each stream and writes to
    it; ``hook_mix`` is ``[batch pos new old]``, what becomes of the streams beside it.
    """
    return f"hyper.{_sublayer(sublayer)}.{name}"


ATTNRES_HEAD = "attnres.head"
"""Where the hooks are of what the head reads by a softmax over depth."""


def attnres(sublayer: int, name: str) -> str:
    """Name of a hook on what a sublayer reads by a softmax over depth.

    Sublayers are counted in the order of depth: ``attnres(3, "hook_alpha")`` is
    ``attnres.1.mlp.hook_alpha``. ``hook_candidates`` is ``[batch pos candidate d_model]``, what the
    softmax is over, the newest last, with the running state behind it where that is added;
    ``hook_alpha`` is ``[batch pos candidate]``, its weights, which sum to one.
    """
    return f"attnres.{_sublayer(sublayer)}.{name}"


def attnres_values(layer: int) -> str:
    """Name of the hook on the weights by which the values of a block are read, where apart."""
    return f"attnres.{layer}.v.hook_alpha"


def _sublayer(number: int) -> str:
    return f"{number // 2}.{'mlp' if number % 2 else 'attn'}"


PRE_SMEAR = "embed.hook_pre_smear"
"""``[batch pos d_model]``: each token's embedding by itself, where smear adds of the one before."""

SMEAR = "embed.hook_smear"
"""``[batch pos 1]``: how much is added of the embedding of the token before; 0 at the first."""

PRE_SOFTCAP = "unembed.hook_pre_softcap"
"""``[batch pos d_vocab]``: logits before their softcap, where they have one."""


def value_embed(layer: int) -> str:
    """Name of the hook on what a value embedding adds to values: ``[batch pos kv_head d_head]``.

    It is the token's own vector times the gate of :func:`value_gate`.
    """
    return attn(layer, "hook_value_embed")


def value_gate(layer: int) -> str:
    """Name of the hook on the gate of a value embedding: ``[batch pos kv_head]``."""
    return attn(layer, "hook_value_gate")


def embed_stream(stream: int) -> str:
    """Name of the hook on one of AltUp's streams as it enters block 0: ``[batch pos d_model]``."""
    return f"{EMBED}.{stream}"


def altup(layer: int, name: str) -> str:
    """Name of a hook on AltUp's streams in front of a block, or on what mixes them.

    ``hook_streams`` is ``[batch pos stream d_model]``, ``hook_predict`` ``[batch pos new old]`` and
    ``hook_correct`` ``[batch pos stream]``.
    """
    return block(layer, f"altup.{name}")


STREAMS_FINAL = "hook_streams_final"
"""``[batch pos stream d_model]``: AltUp's streams behind the last block."""


def attn(layer: int, name: str) -> str:
    """Name of a hook inside the attention of a block, e.g. ``attn(3, "hook_pattern")``."""
    return block(layer, f"attn.{name}")


def pattern(layer: int) -> str:
    """Name of the hook on attention probabilities: ``[batch head query key]``, rows sum to one."""
    return attn(layer, "hook_pattern")


def shares(layer: int) -> str:
    """Name of the hook on what attention gives each key beside a sink: ``[batch head query key]``.

    Rows sum to less than one, and compressed keys stand behind those of the positions.
    """
    return attn(layer, "hook_shares")


def block(layer: int, name: str) -> str:
    """Name of a hook of a block."""
    return f"blocks.{layer}.{name}"


_IN_BLOCKS = re.compile(r"(blocks|dense|dense_pre_norms|hyper|attnres)\.(\d+)\.")


def blocks_needed(name: str) -> int | None:
    """How many blocks have run when a hook has fired; ``None`` for all, and the final norm."""
    # X_0 may be hooked where it enters block 0: a bridged model's positions are added there.
    if name in (EMBED, PRE_SMEAR, SMEAR, dense_weights(-1, "r")):
        return 1
    found = _IN_BLOCKS.match(name)
    if found is None:
        return None
    part, number = found.groups()
    return max(1, int(number)) if part == "dense_pre_norms" else int(number) + 1


_TWO_BEHIND = (
    "hook_q",
    "hook_k",
    "hook_v",
    "hook_value_embed",
    "hook_z",
    "hook_result",
    "hook_rot_q",
    "hook_rot_k",
    "hook_q_normed",
    "hook_k_normed",
    "hook_streams",
    "hook_mix",
    "hook_candidates",
    "hook_predict",
    STREAMS_FINAL,
)
"""Hooks with two axes behind that of positions: heads, streams or candidates, and what each has."""


def position_axis(name: str) -> int:
    """Which axis of a hook's tensor is that of positions, counted from the end."""
    of_heads = ".q_norm." in name or ".k_norm." in name
    return -3 if of_heads or name.rpartition(".")[2] in _TWO_BEHIND else -2


def of_pairs(name: str) -> bool:
    """Whether a hook holds a number for each query and key: ``[batch head query key]``."""
    return name.endswith((".hook_pattern", ".hook_attn_scores", ".hook_shares"))


_ELSEWHERE = {
    "hook_in": "hook_resid_pre",
    "hook_out": "hook_resid_post",
    "hook_attn_in": "hook_q_input",
    "hook_mlp_in": "hook_resid_mid",
    "hook_pos_embed": "hook_embed",
    "embed.hook_out": "hook_embed",
    "attn.hook_q_input": "hook_q_input",
    "attn.hook_k_input": "hook_k_input",
    "attn.hook_v_input": "hook_v_input",
    "attn.hook_in": "hook_q_input",
    "attn.hook_out": "hook_attn_out",
    "attn.q.hook_in": "hook_q_input",
    "attn.k.hook_in": "hook_k_input",
    "attn.v.hook_in": "hook_v_input",
    "attn.q.hook_out": "attn.hook_q",
    "attn.k.hook_out": "attn.hook_k",
    "attn.v.hook_out": "attn.hook_v",
    "attn.o.hook_in": "attn.hook_z",
    "attn.o.hook_out": "hook_attn_out",
    "attn.hook_attn_out": "hook_attn_out",
    "mlp.hook_in": "ln2.hook_normalized",
    "mlp.hook_out": "hook_mlp_out",
    "mlp.gate.hook_out": "mlp.hook_pre",
    "mlp.in.hook_out": "mlp.hook_pre",
    "mlp.out.hook_in": "mlp.hook_post",
    "mlp.out.hook_out": "hook_mlp_out",
    "ln1.hook_in": "hook_resid_pre",
    "ln1.hook_out": "ln1.hook_normalized",
    "ln2.hook_in": "hook_resid_mid",
    "ln2.hook_out": "ln2.hook_normalized",
    "ln_final.hook_in": RESID_FINAL,
    "ln_final.hook_out": "ln_final.hook_normalized",
    "unembed.hook_in": "ln_final.hook_normalized",
}
"""Names of TransformerLens' bridge (of a block's hooks, behind ``blocks.{l}.``), and what to hook
here: the same tensor, or the one next to it before or behind a norm."""


def counterpart(name: str) -> str:
    """The name to use here for one of TransformerLens' bridge; any other name as it is."""
    found = re.fullmatch(r"(blocks\.\d+\.)?(.*)", name, re.DOTALL)
    assert found is not None
    place, rest = found.groups(default="")
    return place + _ELSEWHERE.get(rest, rest)


_LONGEST_NAME = 200  # to look for near ones takes longer than a name is long


def short(name: str) -> str:
    """A name in a message; of a long one the beginning."""
    return name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 3] + "..."


def unknown_name(kind: str, name: str, known: Iterable[str]) -> str:
    """The message for a name that does not exist, with the nearest names that do."""
    names = list(known)
    name = short(name)
    meant = [each for each in (counterpart(name),) if each in names]
    near = meant or difflib.get_close_matches(name, names, n=3, cutoff=0.6)
    hint = f"; did you mean {' or '.join(f'`{candidate}`' for candidate in near)}?" if near else "."
    return f"no {kind} `{name}`{hint}"
