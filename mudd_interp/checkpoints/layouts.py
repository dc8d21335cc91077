"""The layouts that are read as models of this project, each by the ``model_type`` it has."""

from collections.abc import Mapping

from mudd_interp.checkpoints.denseformer import DENSEFORMER_LAYOUT
from mudd_interp.checkpoints.layout import Layout
from mudd_interp.checkpoints.mhc_lite import MARK as MHC_LITE_MARK
from mudd_interp.checkpoints.mhc_lite import MHC_LITE_LAYOUT
from mudd_interp.checkpoints.mhc_lite import MODEL_TYPE as MHC_LITE
from mudd_interp.checkpoints.nanochat import MARK as NANOCHAT_MARK
from mudd_interp.checkpoints.nanochat import MODEL_TYPE as NANOCHAT
from mudd_interp.checkpoints.nanochat import NANOCHAT_LAYOUT, TRANSFORMERS_TYPE
from mudd_interp.checkpoints.own import MODEL_TYPE, OWN_LAYOUT
from mudd_interp.checkpoints.qwen3_attnres import MODEL_TYPE as QWEN3_ATTNRES
from mudd_interp.checkpoints.qwen3_attnres import QWEN3_ATTNRES_LAYOUT
from mudd_interp.checkpoints.released import RELEASED_LAYOUT
from mudd_interp.checkpoints.vit import VIT_LAYOUTS
from mudd_interp.config.released import RELEASED_TYPES

LAYOUTS: Mapping[str, Layout] = {
    MODEL_TYPE: OWN_LAYOUT,
    **dict.fromkeys(RELEASED_TYPES, RELEASED_LAYOUT),
    "denseformer": DENSEFORMER_LAYOUT,
    **VIT_LAYOUTS,
    MHC_LITE: MHC_LITE_LAYOUT,
    NANOCHAT: NANOCHAT_LAYOUT,
    QWEN3_ATTNRES: QWEN3_ATTNRES_LAYOUT,
}
"""Any other ``model_type`` is for transformers to read."""

MARKS: Mapping[str, str] = {MHC_LITE_MARK: MHC_LITE, NANOCHAT_MARK: NANOCHAT}
"""Fields that give away the ``model_type`` where a ``config.json`` has none."""

SHARED: Mapping[str, str] = {NANOCHAT: TRANSFORMERS_TYPE}
"""A ``model_type`` that says less than such a field: transformers has a model of that name too."""
