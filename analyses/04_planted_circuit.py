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
        row = cfg.ways(layer).index(stream)
        model.dense[str(layer)].a[row] = torch.tensor(values, dtype=torch.float64)
    return model


# %% [markdown]
# ## A value stream that reads the embedding only
#
# The V stream of block 3 (it follows block 2) gets weight 1 on $X_0$ and 0 on all else. So it must be
# made of the embedding alone, and no head before block 3 may be found in it.

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
# reaches the end through $X_1$ and $X_3$, and in no other way: coefficient 2 × ½ = 1.

# %%
model = planted(r1=[0, 2, 0], r3=[0, 0, 0, 0.5, 0])
route = mi.analysis.routes(model, tokens[:1], source=1)
mi.viz.routes_figure(route).show()
print(route.frame.to_string(index=False))

# %% [markdown]
# Interventions agree: of all edges that the two hops could use, only the two on the route change what
# the model predicts of it. Cutting either of them cuts the whole route.

# %%
sweep = mi.analysis.ablation_sweep(model, [tokens])
effects = sweep.frame.query("stream == 'r'").pivot(index="layer", columns="source", values="kl")
effects.round(4)

# %% [markdown]
# ## A large weight without effect
#
# Weight is not cause. The final norm of this model takes away what is the same in all dimensions.
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
