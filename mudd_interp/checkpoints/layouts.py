"""The layouts that are read as models of this project, each by the ``model_type`` it has."""

from collections.abc import Mapping

from mudd_interp.checkpoints.denseformer import DENSEFORMER_LAYOUT
from mudd_interp.checkpoints.layout import Layout
from mudd_interp.checkpoints.mhc_lite import MARK as MHC_LITE_MARK
from mudd_interp.checkpoints.mhc_lite import MHC_LITE_LAYOUT
from mudd_interp.checkpoints.mhc_lite import MODEL_TYPE as MHC_LITE
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
    QWEN3_ATTNRES: QWEN3_ATTNRES_LAYOUT,
}
"""Any other ``model_type`` is for transformers to read."""

MARKS: Mapping[str, str] = {MHC_LITE_MARK: MHC_LITE}
"""Fields that give away the ``model_type`` where a ``config.json`` has none."""
