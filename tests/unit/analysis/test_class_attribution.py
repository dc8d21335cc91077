"""A class logit divided among patches and components: against loops, the model, interventions."""

from typing import Any

import numpy as np
import pytest
import torch

from mudd_interp import axes
from mudd_interp.analysis import class_attribution, path_coefficients
from tests.parity.family import FAMILY, random_model
from tests.unit import seeing

ANSWER, AGAINST = 3, 8


def written(cache, layer):
    yield f"attn {layer}", axes.attn_out(layer), layer + 1
    yield f"mlp {layer}", axes.mlp_out(layer), layer + 1


def components(model, image):
    """Each component as it is in the final stream, ``[pos d_model]``, and the final stream."""
    _, cache = model.run_with_cache(image)
    total = cache.path_coefficients()[0].detach()  # [pos source _]
    every = [("embed", axes.EMBED, 0)]
    every += [each for layer in range(model.cfg.n_layers) for each in written(cache, layer)]
    parts = {name: (cache[hook][0] * total[:, at]).detach() for name, hook, at in every}
    return parts, cache[axes.RESID_FINAL][0].detach(), cache


@pytest.mark.parametrize("against", [None, AGAINST])
@pytest.mark.parametrize("name", seeing.NAMES)
def test_each_share_is_that_of_the_equations_written_out(name: str, against: int | None):
    model: Any = seeing.vision_model(name)
    image = seeing.seen(1)
    found = class_attribution(model, image[0], ANSWER, against)
    parts, final, cache = components(model, image)
    w = model.unembed.W_U.detach()
    direction = w[:, ANSWER] - (0 if against is None else w[:, against])
    gain, eps = model.ln_final.w.detach(), model.cfg.eps
    for row, (component, vectors) in enumerate(parts.items()):
        assert found.components[row] == component
        for patch in range(16):
            x, c = final[patch], vectors[patch]
            scale = ((x - x.mean()).square().mean() + eps).sqrt()
            share = ((c - c.mean()) / scale * gain) @ direction / 16
            assert found.contribution[row, patch] == pytest.approx(float(share), abs=1e-12)
    total = cache.path_coefficients()[0].detach()
    for layer, block in enumerate(model.blocks):
        z, w_o = cache[axes.attn(layer, "hook_z")][0].detach(), block.attn.W_O.detach()
        for head in range(model.cfg.n_heads):
            for patch in range(16):
                c, x = z[patch, head] @ w_o[head] * total[patch, layer + 1], final[patch]
                scale = ((x - x.mean()).square().mean() + eps).sqrt()
                share = ((c - c.mean()) / scale * gain) @ direction / 16
                assert found.heads[layer, head, patch] == pytest.approx(float(share), abs=1e-12)


@pytest.mark.parametrize("name", seeing.NAMES)
def test_everything_sums_to_the_logit_of_the_model(name: str):
    model: Any = seeing.vision_model(name)
    image = seeing.seen(1)
    logits = model(image)[0].detach()
    found: Any = class_attribution(model, image, "Dress", "Bag")
    logit = float(logits[ANSWER] - logits[AGAINST])
    assert (found.answer, found.against, found.answer_id) == ("Dress", "Bag", ANSWER)
    assert found.logit == pytest.approx(logit, abs=1e-12)
    assert found.completeness_error < 1e-12
    assert found.by_component.sum() == pytest.approx(logit, abs=1e-12)
    assert found.by_patch.sum() + found.constant == pytest.approx(logit, abs=1e-12)
    assert found.frame["contribution"].sum() == pytest.approx(logit, abs=1e-12)
    bias = found.heads.sum(1) + found.attn_bias
    np.testing.assert_allclose(bias, found.contribution[1::2], atol=1e-15)
    likeliest = class_attribution(model, image)
    assert likeliest.answer_id == int(logits.argmax())
    assert likeliest.logit == pytest.approx(float(logits.max()), abs=1e-12)


@pytest.mark.parametrize("name", ["see", "see-plain"])
def test_taking_a_component_out_at_a_patch_costs_its_share(name: str):
    """With the final norm's scale as it was, as the analysis says."""
    model: Any = seeing.vision_model(name)
    image = seeing.seen(1)
    found = class_attribution(model, image, ANSWER)
    parts, _, cache = components(model, image)
    for row, component in ((0, "embed"), (3, "attn 1"), (6, "mlp 2")):
        for patch in (0, 5):

            def without(x, hook, patch=patch, component=component):
                x = x.clone()
                x[0, patch] -= parts[component][patch]
                return x

            frozen = cache[axes.FINAL_SCALE]
            hooks = [(axes.RESID_FINAL, without), (axes.FINAL_SCALE, lambda x, hook, f=frozen: f)]
            logit = model.run_with_hooks(image, fwd_hooks=hooks)[0, ANSWER].detach()
            cost = found.logit - float(logit)
            assert found.contribution[row, patch] == pytest.approx(cost, abs=1e-12)


def test_the_table_names_every_place():
    found = class_attribution(seeing.vision_model(), seeing.seen(1), ANSWER)
    frame: Any = found.frame
    assert list(frame.columns) == ["kind", "layer", "patch", "row", "column", "contribution"]
    assert len(frame) == 7 * 16 + 1
    place = (frame["kind"] == "mlp") & (frame["layer"] == 1) & (frame["row"] == 2)
    one = frame[place & (frame["column"] == 3)]
    assert one["contribution"].tolist() == [found.contribution[4, 11]]
    assert one["patch"].tolist() == [11]
    assert frame["patch"].isna().sum() == 1
    assert frame["kind"].iloc[-1] == "constant"


def test_what_cannot_be_divided_is_refused_in_words():
    image, model = seeing.seen(1), seeing.vision_model()
    with pytest.raises(NotImplementedError, match="not linear in the final stream"):
        class_attribution(seeing.vision_model(pre_logits=True), image)
    with pytest.raises(ValueError, match="no class `Bags`; did you mean `Bag`"):
        class_attribution(model, image, "Bags")
    for wrong in ("10", 10, -1, [1, 2]):
        with pytest.raises(ValueError, match=r"expected one class in 0\.\.9, got"):
            class_attribution(model, image, wrong)
    text = random_model(FAMILY["MUDDFormer"])
    with pytest.raises(ValueError, match=r"class_attribution is not for .* it reads no images"):
        class_attribution(text, image)
    for given in ("3", torch.tensor(3), np.int64(3)):
        assert class_attribution(model, image, given).answer == "Dress"


def test_the_coefficients_of_the_final_stream_make_it():
    model, image = seeing.vision_model("see-no-norms"), seeing.seen(1)
    _, final, cache = components(model, image)
    found = path_coefficients(model, image).final
    total = torch.zeros_like(final)
    for source, coefficient in enumerate(found):
        names = (
            [axes.EMBED] if source == 0 else [axes.attn_out(source - 1), axes.mlp_out(source - 1)]
        )
        total += sum(cache[name][0].detach() for name in names) * torch.tensor(coefficient)[:, None]
    torch.testing.assert_close(total, final, rtol=0, atol=1e-10)
