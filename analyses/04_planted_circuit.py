# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A planted circuit
#
# A tool that finds things should first find what is known to be there, and nothing else. Here the
# dense weights of a small model are written by hand. All other weights are random.

# %%
import kaleido
import plotly.io as pio
import torch

import mudd_interp as mi

pio.renderers.default = "plotly_mimetype+png"
kaleido.start_sync_server(mathjax=False)
torch.set_grad_enabled(False)
torch.manual_seed(0)

cfg = mi.ModelConfig(n_layers=4, d_model=32, n_heads=2, d_vocab=60, d_mlp=64, n_ctx=32)
tokens = torch.randint(60, (4, 12))


def planted(**weights):
    """A model in float64 whose stream, say v2, reads X_0.. with these weights: else it is plain."""
    torch.manual_seed(1)
    model = mi.HookedMUDDTransformer(cfg, dtype=torch.float64)
    for place, values in weights.items():
        stream, layer = place[0], int(place[1])
        dense = model.dense[str(layer)]
        dense.a[dense.streams.index(stream)] = torch.tensor(values, dtype=torch.float64)
    return model


# %% [markdown]
# ## A value stream that reads the embedding only
#
# The V stream of block 3 (it follows block 2) gets weight 1 on $X_0$ and 0 on all else. So it must
# consist of the embedding alone, and no head before block 3 may be found in it.

# %%
model = planted(v2=[1, 0, 0, 0])
found = mi.analysis.stream_decomposition(model, tokens[:1], layer=3, stream="v")
mi.viz.stream_decomposition_figure(found, 11).show()
shares = dict(zip(found.components, found.share[:, 11].round(12), strict=True))
print(shares)

# %% [markdown]
# ## A route of two hops
#
# After block 1 the residual stream takes twice $X_1$; after block 3 half of $X_3$. What block 0 wrote
# reaches the end through $X_1$ and $X_3$ and by no other route: coefficient 2 × ½ = 1.

# %%
model = planted(r1=[0, 2, 0], r3=[0, 0, 0, 0.5, 0])
route = mi.analysis.routes(model, tokens[:1], source=1)
mi.viz.routes_figure(route).show()
print(route.frame.to_string(index=False))

# %% [markdown]
# Interventions agree: of all edges that the two hops could use, only the two on the route change
# the prediction. Cutting either of them cuts the whole route.

# %%
sweep = mi.analysis.ablation_sweep(model, [tokens])
effects = sweep.frame.query("stream == 'r'").pivot(index="layer", columns="source", values="kl")
effects.round(4)

# %% [markdown]
# ## A large weight without effect
#
# Weight is not cause. The final norm of this model removes what is the same in all dimensions.
# Block 1 writes nothing else, and the last aggregation reads it with weight 50: by far the largest
# weight of the model, and by far the largest contribution. Cutting it changes nothing.

# %%
cfg = mi.ModelConfig(
    n_layers=2,
    d_model=32,
    n_heads=2,
    d_vocab=60,
    d_mlp=64,
    n_ctx=32,
    normalization_type="LN",
    mlp_bias=True,
)
model = planted(r0=[0, 0], r1=[0, 1, 50])
for name, parameter in model.named_parameters():
    if name.endswith(("attn.W_O", "mlp.W_out", "mlp.b_out")):
        parameter.fill_(name == "blocks.1.mlp.b_out")

ones = tokens[:, :1].repeat(1, 2)  # block 0 writes nothing, block 1 reads nothing and writes ones
sizes = mi.analysis.edge_sizes(model, [ones])
sweep = mi.analysis.ablation_sweep(model, [ones])
table = mi.analysis.weight_contribution_cause(sizes, sweep)
table = table.query("stream == 'r' and layer == 1")
table[["source", "weight", "contribution", "kl"]].round(6)

# %% [markdown]
# ## An induction head whose keys come through a dense edge
#
# An induction head needs the token *before* each key, which a head of an earlier layer writes. Here
# both are written by hand. The width holds a constant, the token, the token before, and the
# prediction. Head 0.0 looks one position back and writes the token before. Head 2.0 compares it with
# its own token, and predicts the token that it finds. Everything else writes nothing.
#
# In block 1 the residual stream takes the embedding only, so $X_2$ lacks the token before. The keys of
# block 2 read $X_1$ by a dense edge, with weight 1. In the **control** they read $X_2$, as in a plain
# Transformer; nothing else differs.

# %%
n = 24
cfg = mi.ModelConfig(
    n_layers=3,
    d_model=80,
    n_heads=2,
    d_vocab=n,
    d_mlp=8,
    n_ctx=48,
    d_head=8 + n,
    rotary_dim=8,
    rotary_base=100.0,
)


def induction_model(**weights):
    model = planted(r0=[1, 0], **weights)
    one, token, before, prediction = torch.eye(80).double()[: 1 + 3 * n].split([1, n, n, n])
    turned, matched = torch.eye(8 + n).double().split([8, n])  # by position, and not
    angle = 100.0 ** -(torch.arange(4).double() / 4)
    for name, parameter in model.named_parameters():
        if name.endswith((".W_O", ".W_out")):
            parameter.zero_()
    model.embed.W_E[:] = one + token
    model.unembed.W_U[:] = 4 * prediction.T
    first, last = model.blocks[0].attn, model.blocks[2].attn
    # Keys are turned by one position more than queries: the product is largest one back.
    first.W_Q[0] = 4 * one.T @ turned[:4].sum(0, keepdim=True)
    first.W_K[0] = 4 * one.T @ (torch.cat([angle.cos(), angle.sin()]) @ turned)[None]
    first.W_V[0], first.W_O[0] = token.T @ matched, 0.2 * matched.T @ before
    last.W_Q[0] = 4 * token.T @ matched
    last.W_K[0] = 4 * before.T @ matched + one.T @ turned[:1]
    last.W_V[0], last.W_O[0] = token.T @ matched, matched.T @ prediction
    return model


with_edge, control = induction_model(k1=[0, 1, 0]), induction_model()
repeated = {"length": 12, "repeats": 2, "n_sequences": 4}
scores = [
    mi.analysis.head_scores(model, **repeated).frame.set_index(["layer", "head"])
    for model in (with_edge, control)
]
for name, frame in zip(("with the edge", "control"), scores, strict=True):
    best = frame["induction"].idxmax()
    print(
        f"{name}: induction score of 2.0 {frame['induction'][2, 0]:.3f}, highest "
        f"{frame['induction'][best]:.3f} at {best[0]}.{best[1]}; previous-token score of 0.0 "
        f"{frame['previous_token'][0, 0]:.3f}"
    )

# %% [markdown]
# (The first token has none before it; where it repeats, half of the attention goes astray: the
# score can be 1 − 1/24 = 0.958 at most.) What writes the keys of head 2.0, and by which route?

# %%
batches = mi.data.repeated_batches(with_edge, **repeated)
inputs = [mi.analysis.head_inputs(model, batches, 2, 0) for model in (with_edge, control)]
mi.viz.head_inputs_figure(inputs[0], shown=4).show()
sequence = next(iter(batches))[:1]
ways = [
    mi.analysis.routes(model, sequence, source=1, layer=2, stream="k")
    for model in (with_edge, control)
]
print("routes from block 0 to the keys of block 2:")
for name, found in zip(("with the edge", "control"), ways, strict=True):
    print(f"  {name}:", [found.name(route) for route in found.routes] or "none")

# %% [markdown]
# And all edges, cut one after another. Queries and values read the token in $X_2$, and the output
# is $X_3$: these edges matter in any model. Of those that could carry what head 0.0 wrote, the
# sweep finds the one that does, and in the control none.

# %%
kl = [
    mi.analysis.ablation_sweep(model, batches).frame.set_index("edits")["kl"]
    for model in (with_edge, control)
]
found = [each[each.abs() > 1e-9].round(4).to_dict() for each in kl]
print("with the edge:", found[0])
print("control:      ", found[1])

# %%
assert shares["embed"] == 1
assert not any(share for name, share in shares.items() if name != "embed")
assert [(r.sources, r.coefficient) for r in route.routes] == [((1, 3), 1.0)]
assert effects.loc[1, 1] > 0 < effects.loc[3, 3]
assert effects.loc[1, [0, 2]].eq(0).all()
assert effects.loc[3, [0, 1, 2, 4]].eq(0).all()
table = table.set_index("source")
assert table["contribution"].idxmax() == table["weight"].idxmax() == 2
assert abs(table["kl"][2]) < 1e-12 < table["kl"][1]
assert scores[0]["induction"][2, 0] > 0.95
assert scores[1]["induction"].max() < 0.2
keys = [each.frame.set_index(["stream", "component"]).loc["k"] for each in inputs]
assert keys[0].loc["head 0.0", "direct"] > 0.9
assert not keys[0].loc["head 0.0", "chain"]
assert not keys[1].loc["head 0.0", "total"]
assert [[route.sources for route in each.routes] for each in ways] == [[(1,)], []]
always = {"cut r 0<-0", "cut v 1<-2", "cut r 1<-2", "cut r 2<-3"}
assert set(found[0]) == always | {"cut q 1<-2", "cut k 1<-1"}
assert set(found[1]) == always
