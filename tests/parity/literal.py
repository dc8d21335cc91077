"""The paper's equations, written out slowly: loops over sources, streams, heads and positions.

An independent reading of the equations, for the tests: it shares no code with the package beyond
the configuration, takes the model's state dict, and computes in float64. Speed is not a goal.
"""

import itertools
import math
from collections.abc import Mapping

import torch
from torch import Tensor

from mudd_interp.axes import STREAMS
from mudd_interp.config import Classes, ModelConfig, Patches
from mudd_interp.config.wiring import flags_of_wiring
from mudd_interp.model.wirings import AttnRes, Hyper, Scalars, Static

Weights = dict[str, Tensor]


def rms(x: Tensor, eps: float | None) -> Tensor:
    return x / torch.sqrt((x * x).mean(-1, keepdim=True) + step(eps))


def step(eps: float | None) -> float:
    """An epsilon; without one, the smallest step from 1 to the next number in float64."""
    return 2.0**-52 if eps is None else eps


def norm(x: Tensor, weights: Weights, name: str, cfg: ModelConfig) -> Tensor:
    if cfg.normalization_type == "RMS":
        return rms(x, cfg.eps) * weights[f"{name}.w"]
    centred = x - x.mean(-1, keepdim=True)
    variance = (centred * centred).mean(-1, keepdim=True)
    return (
        centred / torch.sqrt(variance + step(cfg.eps)) * weights[f"{name}.w"] + weights[f"{name}.b"]
    )


def gelu(x: Tensor) -> Tensor:
    return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))


def gelu_tanh(x: Tensor) -> Tensor:
    return x * 0.5 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def rotate(x: Tensor, cfg: ModelConfig) -> Tensor:
    """``x`` is [pos d_head]; position t turns pair (i, i + n/2) by t * base^(-2i/n)."""
    n = cfg.rotated
    out = x.clone()
    for i in range(n // 2):
        for t in range(x.shape[0]):
            angle = t * cfg.rotary_base ** (-2 * i / n)
            a, b = x[t, i], x[t, i + n // 2]
            out[t, i] = a * math.cos(angle) - b * math.sin(angle)
            out[t, i + n // 2] = b * math.cos(angle) + a * math.sin(angle)
    return out


def attention(inputs: dict[str, Tensor], w: Weights, name: str, cfg: ModelConfig) -> Tensor:
    """The inputs q, k and v are [pos d_model], normed."""
    xq, xk, xv = inputs["q"], inputs["k"], inputs["v"]
    out = torch.zeros_like(xq)
    group = cfg.n_heads // cfg.kv_heads
    for h in range(cfg.n_heads):
        q = xq @ w[f"{name}.W_Q"][h] + w.get(f"{name}.b_Q", torch.zeros(cfg.n_heads, 1))[h]
        k = xk @ w[f"{name}.W_K"][h // group]
        k = k + w.get(f"{name}.b_K", torch.zeros(cfg.kv_heads, 1))[h // group]
        v = xv @ w[f"{name}.W_V"][h // group]
        v = v + w.get(f"{name}.b_V", torch.zeros(cfg.kv_heads, 1))[h // group]
        if cfg.use_qk_norm:
            q = rms(q, cfg.eps) * w[f"{name}.q_norm.w"]
            k = rms(k, cfg.eps) * w[f"{name}.k_norm.w"]
        q, k = rotate(q, cfg), rotate(k, cfg)
        for t in range(xq.shape[0]):
            seen = t + 1 if cfg.attention_dir == "causal" else len(k)
            scores = (k[:seen] @ q[t]) / math.sqrt(cfg.head_width)
            pattern = torch.exp(scores - scores.max())
            pattern = pattern / pattern.sum()
            out[t] += (pattern @ v[:seen]) @ w[f"{name}.W_O"][h]
    return out + w.get(f"{name}.b_O", torch.zeros(1))


def mlp(x: Tensor, w: Weights, name: str, cfg: ModelConfig) -> Tensor:
    known = {"gelu": gelu, "gelu_pytorch_tanh": gelu_tanh}
    act = known.get(cfg.act_fn, lambda y: y * torch.sigmoid(y))
    zero = torch.zeros(1)
    inner = x @ w[f"{name}.W_in"] + w.get(f"{name}.b_in", zero)
    if cfg.gated_mlp:
        inner = act(x @ w[f"{name}.W_gate"] + w.get(f"{name}.b_gate", zero)) * inner
    else:
        inner = act(inner)
    return inner @ w[f"{name}.W_out"] + w.get(f"{name}.b_out", zero)


def block(streams: Mapping[str, Tensor], w: Weights, layer: int, cfg: ModelConfig) -> Tensor:
    name = f"blocks.{layer}"
    normed = {}
    for c in "qkv":
        own = f"{name}.ln1_{c}"
        normed[c] = norm(streams[c], w, own if f"{own}.w" in w else f"{name}.ln1", cfg)
    attended = attention(normed, w, f"{name}.attn", cfg)
    middle = streams["r"] + attended
    read = streams["r"] if cfg.parallel_attn_mlp else middle
    return middle + mlp(norm(read, w, f"{name}.ln2", cfg), w, f"{name}.mlp", cfg)


def dense_rows(read: Tensor, way: int, w: Weights, name: str, cfg: ModelConfig) -> Tensor:
    """The weights [pos source] of one way: GELU(RMSNorm(X) W1) W2 + a."""
    flags = flags_of_wiring(cfg.wiring)
    static = w[f"{name}.a"][way].expand(read.shape[0], -1)
    if flags["dense"] == "static":
        return static
    normed = rms(read, cfg.eps)
    if flags["pre_post_norm"] == "residual":
        normed = normed * w[f"{name}.weight_norm.w"]
    n = static.shape[1]
    return static + (gelu(normed @ w[f"{name}.W_1"]) @ w[f"{name}.W_2"])[:, way * n : (way + 1) * n]


def average(outputs: list[Tensor], w: Weights, index: int, static: Static) -> Tensor:
    """DenseFormer: Y_i = sum_j a_j X_j over j = i modulo the dilation, after each period."""
    if (index + 1) % static.period:
        return outputs[-1]
    read = [x for j, x in enumerate(outputs) if (index + 1 - j) % static.dilation == 0]
    weights = w[f"dense.{index}.a"]
    return sum((a * x for a, x in zip(weights, read, strict=True)), torch.zeros_like(read[0]))


def rescaled(outputs: list[Tensor], w: Weights, cfg: ModelConfig) -> Tensor:
    """nanochat: r x + lambda x_0 in front of a block, and backout at the head."""
    newest, layer = outputs[-1], len(outputs) - 1
    if layer == cfg.n_layers:
        return newest - w["scalars.backout_lambda"] * outputs[cfg.n_layers // 2 + 1]
    r, x0 = w["scalars.resid_lambdas"][layer], w["scalars.x0_lambdas"][layer]
    return r * newest + x0 * outputs[0]


def learned(outputs: list[Tensor], w: Weights, index: int, cfg: ModelConfig) -> Tensor:
    """What is read of X_0 .. X_{index+1} by learned numbers."""
    if isinstance(cfg.wiring, Static):
        return average(outputs, w, index, cfg.wiring)
    return rescaled(outputs, w, cfg)


def aggregate(
    outputs: list[Tensor], w: Weights, index: int, cfg: ModelConfig
) -> Mapping[str, Tensor]:
    """DA after block ``index``: every stream from X_0 .. X_{index+1}."""
    newest, name = outputs[-1], f"dense.{index}"
    if isinstance(cfg.wiring, (Static, Scalars)):
        return dict.fromkeys(STREAMS, learned(outputs, w, index, cfg))
    flags = flags_of_wiring(cfg.wiring)
    if flags["dense"] == "none":
        return dict.fromkeys(STREAMS, newest)
    last = index == cfg.n_layers - 1
    ways = ["r"] if last or not flags["multiway"] else list(STREAMS)
    ways = [c for c in ways if c not in flags["plain_streams"]]
    if not ways:
        return dict.fromkeys(STREAMS, newest)
    prepost = flags["pre_post_norm"]
    sources = outputs
    if prepost != "none":
        sources = [rms(x, cfg.eps) * w[f"dense_pre_norms.{j}.w"] for j, x in enumerate(outputs)]
    mixed = {}
    for c, way in enumerate(ways):
        rows = dense_rows(sources[-1] if prepost == "all" else newest, c, w, name, cfg)
        total = torch.zeros_like(newest)
        for t in range(newest.shape[0]):
            for j, source in enumerate(sources):
                total[t] += rows[t, j] * source[t]
        if prepost == "all" or (prepost == "residual" and way == "r"):
            total = rms(total, cfg.eps) * w[f"{name}.post_norms.{way}.w"]
        mixed[way] = total + newest if prepost != "none" else total
    if not flags["multiway"]:
        return dict.fromkeys(STREAMS, mixed["r"])
    return {c: mixed.get(c, newest) for c in STREAMS}


def embed_patches(image: Tensor, w: Weights, cfg: ModelConfig) -> Tensor:
    """X_0 of one image [channel row column]: a convolution without overlap, and positions."""
    assert isinstance(cfg.front, Patches)
    size, quarter = cfg.front.patch_size, cfg.d_model // 4
    kernel = w["embed.W_E"].T.reshape(cfg.d_model, cfg.front.n_channels, size, size)
    rows = []
    for y in range(cfg.front.image_size // size):
        for x in range(cfg.front.image_size // size):
            patch = image[:, y * size : (y + 1) * size, x * size : (x + 1) * size]
            place = torch.zeros(cfg.d_model)
            for k in range(quarter):
                angle = 10000 ** (-k / (quarter - 1))
                place[k], place[quarter + k] = math.sin(x * angle), math.cos(x * angle)
                place[2 * quarter + k] = math.sin(y * angle)
                place[3 * quarter + k] = math.cos(y * angle)
            rows.append((kernel * patch).sum((1, 2, 3)) + w["embed.b_E"] + place)
    return torch.stack(rows)


def class_logits(final: Tensor, w: Weights, cfg: ModelConfig) -> Tensor:
    """The mean over patches of the normed final stream, perhaps a layer, and the classes."""
    assert isinstance(cfg.task, Classes)
    pooled = final.sum(0) / len(final)
    if cfg.task.pre_logits:
        pooled = torch.tanh(pooled @ w["unembed.W_P"] + w["unembed.b_P"])
    return pooled @ w["unembed.W_U"] + w["unembed.b_U"]


def run(tokens: Tensor, state: Weights, cfg: ModelConfig) -> dict[str, Tensor]:
    """Logits, the outputs X_j and the streams of one sequence of token ids [pos], in float64.

    Of one image [channel row column], where the model reads those.
    """
    w = {name: value.double() for name, value in state.items()}
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        return _run(tokens, w, cfg)
    finally:
        torch.set_default_dtype(default)


def _run(tokens: Tensor, w: Weights, cfg: ModelConfig) -> dict[str, Tensor]:
    is_image = isinstance(cfg.front, Patches)
    outputs = [embed_patches(tokens, w, cfg) if is_image else w["embed.W_E"][tokens]]
    found = {"X.0": outputs[0]}
    first = rescaled(outputs, w, cfg) if isinstance(cfg.wiring, Scalars) else outputs[0]
    streams: Mapping[str, Tensor] = dict.fromkeys(STREAMS, first)
    for layer in range(cfg.n_layers):
        for c in STREAMS:
            found[f"stream.{layer}.{c}"] = streams[c]
        outputs.append(block(streams, w, layer, cfg))
        found[f"X.{layer + 1}"] = outputs[-1]
        streams = aggregate(outputs, w, layer, cfg)
    found["final"] = streams["r"]
    normed = norm(streams["r"], w, "ln_final", cfg)
    found["logits"] = class_logits(normed, w, cfg) if is_image else normed @ w["unembed.W_U"]
    return found


# --- Hyper-connections --------------------------------------------------------------------------


def gate(x: Tensor, w: Weights, name: str, hyper: Hyper, t: int) -> Tensor:
    """One gate at one token, before its bounds; ``x`` is [stream pos d_model]."""
    static = w[f"{name}.b"]
    if hyper.gates == "static":
        return static
    part, a, matrix = name.rpartition(".")[0], w[f"{name}.a"], w[f"{name}.W"]
    if hyper.gates == "sigmoid":
        flat = torch.cat([stream[t] for stream in x])
        return static + a * (rms(flat, hyper.eps) * w[f"{part}.norm.w"] @ matrix).view_as(static)
    of_streams = [torch.tanh(rms(s[t], hyper.eps) * w[f"{part}.norm.w"] @ matrix) for s in x]
    found = static.clone()
    for i, dynamic in enumerate(of_streams):
        found[..., i] += a * (dynamic if static.ndim == 2 else dynamic[0])
    return found


def mixing(logits: Tensor, hyper: Hyper) -> Tensor:
    """T [new old]."""
    n = hyper.n_streams
    if hyper.mixing == "permutations":
        found, shares = torch.zeros(n, n), torch.exp(logits) / torch.exp(logits).sum()
        for share, order in zip(shares, itertools.permutations(range(n)), strict=True):
            for old, new in enumerate(order):
                found[new, old] += share
        return found
    if hyper.mixing == "sinkhorn":
        found = torch.exp(logits)
        for _ in range(hyper.rounds):
            for dim in (1, 0) if hyper.exact == "columns" else (0, 1):
                found = found / found.sum(dim, keepdim=True)
        return found
    return logits


def run_sublayers(tokens: Tensor, state: Weights, cfg: ModelConfig) -> dict[str, Tensor]:
    """Logits and the input of every sublayer and of the head, of one sequence, in float64."""
    w = {name: value.double() for name, value in state.items()}
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        run = _run_hyper if cfg.wiring.kind == "hyper" else _run_attnres
        return run(tokens, w, cfg)
    finally:
        torch.set_default_dtype(default)


def _run_hyper(tokens: Tensor, w: Weights, cfg: ModelConfig) -> dict[str, Tensor]:
    hyper = cfg.wiring
    assert isinstance(hyper, Hyper)
    embedded = w["embed.W_E"][tokens]
    x, found = torch.stack([embedded] * hyper.n_streams), dict[str, Tensor]()
    before = [torch.eye(hyper.n_streams)[0]] * len(tokens)
    for site in range(2 * cfg.n_layers):
        layer, part = site // 2, ("attn", "mlp")[site % 2]
        own = reading(x, w, f"hyper.{layer}.{part}", hyper)
        read = taken(x, before if hyper.delayed else own)
        x, before, found[f"{part}.{layer}"] = site_of(x, read, w, site, cfg), own, read
    return found | head(x, before, w, cfg)


def reading(x: Tensor, w: Weights, name: str, hyper: Hyper) -> list[Tensor]:
    """p at each token."""
    found = [gate(x, w, f"{name}.pre", hyper, t) for t in range(x.shape[1])]
    return [torch.sigmoid(p) for p in found] if hyper.gates == "sigmoid" else found


def taken(x: Tensor, weights: list[Tensor]) -> Tensor:
    """A weighted sum of the streams at each token."""
    read = torch.zeros_like(x[0])
    for t, p in enumerate(weights):
        for i, stream in enumerate(x):
            read[t] += p[i] * stream[t]
    return read


def site_of(x: Tensor, read: Tensor, w: Weights, site: int, cfg: ModelConfig) -> Tensor:
    """The streams behind a sublayer that read what it did."""
    hyper, layer, part = cfg.wiring, site // 2, ("attn", "mlp")[site % 2]
    assert isinstance(hyper, Hyper)
    normed = norm(read, w, f"blocks.{layer}.ln{1 + site % 2}", cfg)
    if part == "attn":
        y = attention(dict.fromkeys("qkv", normed), w, f"blocks.{layer}.attn", cfg)
    else:
        y = mlp(normed, w, f"blocks.{layer}.mlp", cfg)
    kept, name = torch.zeros_like(x), f"hyper.{layer}.{part}"
    for t in range(x.shape[1]):
        mix, post = torch.eye(len(x)), gate(x, w, f"{name}.post", hyper, t)
        if hyper.mixing != "identity":
            mix = mixing(gate(x, w, f"{name}.mix", hyper, t), hyper)
        if hyper.gates == "sigmoid":
            post = 2 * torch.sigmoid(post)
        for i in range(len(x)):
            kept[i, t] = post[i] * y[t] + sum(mix[i, j] * x[j, t] for j in range(len(x)))
    return kept


def head(x: Tensor, last: list[Tensor], w: Weights, cfg: ModelConfig) -> dict[str, Tensor]:
    """What the head reads, and the logits."""
    hyper = cfg.wiring
    assert isinstance(hyper, Hyper)
    if hyper.head == "norms":
        normed = sum((norm(row, w, "ln_final.norm", cfg) for row in x), torch.zeros_like(x[0]))
        rows = {f"final.{i}": row for i, row in enumerate(x)}
        return {**rows, "logits": normed @ w["unembed.W_U"]}
    weights = {
        "sum": [torch.ones(len(x))] * x.shape[1],
        "gate": reading(x, w, "hyper.head", hyper) if hyper.head == "gate" else [],
        "last": last,
    }
    final = taken(x, weights[hyper.head])
    return {"final": final, "logits": norm(final, w, "ln_final", cfg) @ w["unembed.W_U"]}


# --- Attention residuals --------------------------------------------------------------------------


def groups(attnres: AttnRes, k: int) -> list[dict[int, int]]:
    """The candidates of sublayer k: how often each write is in them. Write 0 is the embedding."""
    size = attnres.block_size
    if attnres.residual and k == 0:
        return []
    if attnres.candidates == "states":
        ends = [*(end for end in range(0, k + 1, size)), k]
        return [dict.fromkeys(range(end + 1), 1) for end in ends]
    starts = range(0, k, size)  # the sublayers that begin a block and have written
    if attnres.candidates == "differences":
        entries: list[dict[int, int]] = []
        for start in starts:
            last = entries[-1] if entries else {}
            entries.append({j: 1 - last.get(j, 0) for j in range(start + 1)})
        return [{j: n for j, n in entry.items() if n} for entry in entries]
    blocks = [dict.fromkeys(range(start + 1, min(start + size, k) + 1), 1) for start in starts]
    if attnres.embedding == "both" and blocks:
        blocks[0][0] = 1
    first = {"block": [{0: 1}], "both": [{0: 1}], "none": []}[attnres.embedding]
    if attnres.embedding == "both" and not blocks:
        return [{0: 1}, {0: 1}]
    return [*first, *blocks]


def depth_softmax(
    writes: list[Tensor], sums: list[dict[int, int]], w: Weights, name: str, cfg: ModelConfig
) -> Tensor:
    """``sum_j alpha_j v_j`` at every token, of candidates given by what is in them."""
    attnres, read = cfg.wiring, torch.zeros_like(writes[0])
    assert isinstance(attnres, AttnRes)
    for t in range(len(read)):
        values = [sum(n * writes[j][t] for j, n in each.items()) for each in sums]
        keys = [rms(torch.as_tensor(value), cfg.eps) * w[f"{name}.w"] for value in values]
        logits = [w[f"{name}.q"] @ key for key in keys]
        if attnres.recency_bias:
            logits[-1] = logits[-1] + w[f"{name}.b"]
        total = sum(torch.exp(logit) for logit in logits)
        for logit, value in zip(logits, values, strict=True):
            read[t] += torch.exp(logit) / total * value
    return read


def _run_attnres(tokens: Tensor, w: Weights, cfg: ModelConfig) -> dict[str, Tensor]:
    attnres = cfg.wiring
    assert isinstance(attnres, AttnRes)
    writes, found = [w["embed.W_E"][tokens]], dict[str, Tensor]()

    def read(name: str) -> Tensor:
        sums, state = groups(attnres, len(writes) - 1), torch.stack(writes).sum(0)
        if not sums:
            return state
        chosen = depth_softmax(writes, sums, w, name, cfg)
        return state + chosen if attnres.residual else chosen

    for layer in range(cfg.n_layers):
        streams = dict.fromkeys("qkv", read(f"attnres.{layer}.attn"))
        split = attnres.value_apart and layer > 0
        if split:
            streams["v"] = read(f"attnres.{layer}.v")
        for c in streams:
            found[f"attn.{layer}.{c}" if split else f"attn.{layer}"] = streams[c]
        names = {c: f"blocks.{layer}.ln1_{c}" if split else f"blocks.{layer}.ln1" for c in "qkv"}
        normed = {c: norm(streams[c], w, names[c], cfg) for c in "qkv"}
        writes.append(attention(normed, w, f"blocks.{layer}.attn", cfg))
        found[f"mlp.{layer}"] = read(f"attnres.{layer}.mlp")
        fed = norm(found[f"mlp.{layer}"], w, f"blocks.{layer}.ln2", cfg)
        writes.append(mlp(fed, w, f"blocks.{layer}.mlp", cfg))
    whole = torch.stack(writes).sum(0)
    found["final"] = read("attnres.head") if attnres.head == "softmax" else whole
    return found | {"logits": norm(found["final"], w, "ln_final", cfg) @ w["unembed.W_U"]}
