"""Figures: a result of an analysis -> a Plotly figure, returned and never shown."""

from mudd_interp.viz.appearance import alt_text as alt_text
from mudd_interp.viz.appearance import dark as dark
from mudd_interp.viz.attention import attention_figure as attention_figure
from mudd_interp.viz.attention import pattern_figure as pattern_figure
from mudd_interp.viz.attention_over_image import (
    attention_over_image_figure as attention_over_image_figure,
)
from mudd_interp.viz.class_attribution import (
    class_attribution_figure as class_attribution_figure,
)
from mudd_interp.viz.contributions import (
    logit_attribution_figure as logit_attribution_figure,
)
from mudd_interp.viz.contributions import (
    stream_decomposition_figure as stream_decomposition_figure,
)
from mudd_interp.viz.delta_weights import delta_difference_figure as delta_difference_figure
from mudd_interp.viz.delta_weights import delta_weights_figure as delta_weights_figure
from mudd_interp.viz.distribution import edge_distribution_figure as edge_distribution_figure
from mudd_interp.viz.edges import edge_figure as edge_figure
from mudd_interp.viz.edges import edge_limits as edge_limits
from mudd_interp.viz.edit_effects import edit_effects_figure as edit_effects_figure
from mudd_interp.viz.export import IMAGE_FORMATS as IMAGE_FORMATS
from mudd_interp.viz.export import ImageFormat as ImageFormat
from mudd_interp.viz.export import figure_html as figure_html
from mudd_interp.viz.export import figure_images as figure_images
from mudd_interp.viz.export import find_browser as find_browser
from mudd_interp.viz.frozen_live import frozen_live_figure as frozen_live_figure
from mudd_interp.viz.growth import growth_figure as growth_figure
from mudd_interp.viz.head_inputs import head_inputs_figure as head_inputs_figure
from mudd_interp.viz.head_scores import head_depth_figure as head_depth_figure
from mudd_interp.viz.head_scores import head_scores_figure as head_scores_figure
from mudd_interp.viz.heads import activity_difference_figure as activity_difference_figure
from mudd_interp.viz.heads import head_activity_figure as head_activity_figure
from mudd_interp.viz.heads import head_heatmap_figure as head_heatmap_figure
from mudd_interp.viz.interventions import causes_figure as causes_figure
from mudd_interp.viz.interventions import edge_effects_figure as edge_effects_figure
from mudd_interp.viz.interventions import edge_patch_figure as edge_patch_figure
from mudd_interp.viz.interventions import first_order_figure as first_order_figure
from mudd_interp.viz.interventions import in_context_figure as in_context_figure
from mudd_interp.viz.interventions import static_dynamic_figure as static_dynamic_figure
from mudd_interp.viz.ladder import ladder_figure as ladder_figure
from mudd_interp.viz.ladder import zoo_figure as zoo_figure
from mudd_interp.viz.lens import logit_lens_figure as logit_lens_figure
from mudd_interp.viz.lens import stream_lens_figure as stream_lens_figure
from mudd_interp.viz.loss_comparison import loss_comparison_figure as loss_comparison_figure
from mudd_interp.viz.losses import loss_lines_figure as loss_lines_figure
from mudd_interp.viz.losses import loss_strip_figure as loss_strip_figure
from mudd_interp.viz.next_tokens import next_tokens_figure as next_tokens_figure
from mudd_interp.viz.norms import norms_difference_figure as norms_difference_figure
from mudd_interp.viz.norms import norms_figure as norms_figure
from mudd_interp.viz.norms import norms_limits as norms_limits
from mudd_interp.viz.patch_similarity import (
    patch_similarity_difference_figure as patch_similarity_difference_figure,
)
from mudd_interp.viz.patch_similarity import patch_similarity_figure as patch_similarity_figure
from mudd_interp.viz.patch_similarity import patch_similarity_limits as patch_similarity_limits
from mudd_interp.viz.patch_sinks import patch_sinks_figure as patch_sinks_figure
from mudd_interp.viz.path_coefficients import (
    path_coefficients_figure as path_coefficients_figure,
)
from mudd_interp.viz.picture import Picture as Picture
from mudd_interp.viz.relative_offsets import (
    relative_offset_scores_figure as relative_offset_scores_figure,
)
from mudd_interp.viz.relative_offsets import relative_offsets_figure as relative_offsets_figure
from mudd_interp.viz.rollout import rollout_figure as rollout_figure
from mudd_interp.viz.routes import routes_figure as routes_figure
from mudd_interp.viz.scaling import scaling_figure as scaling_figure
from mudd_interp.viz.similarity import (
    similarity_difference_figure as similarity_difference_figure,
)
from mudd_interp.viz.similarity import similarity_figure as similarity_figure
from mudd_interp.viz.similarity import similarity_limits as similarity_limits
from mudd_interp.viz.similarity_matrix import (
    similarity_matrix_difference_figure as similarity_matrix_difference_figure,
)
from mudd_interp.viz.similarity_matrix import similarity_matrix_figure as similarity_matrix_figure
from mudd_interp.viz.sinks import sink_sensitivity_figure as sink_sensitivity_figure
from mudd_interp.viz.state_patch import state_patch_figure as state_patch_figure
from mudd_interp.viz.stream_mixing import stream_mixing_figure as stream_mixing_figure
from mudd_interp.viz.stream_weights import stream_weights_figure as stream_weights_figure
from mudd_interp.viz.theme import shown as shown
from mudd_interp.viz.theme import source_line as source_line
from mudd_interp.viz.token_weights import TokenStatistic as TokenStatistic
from mudd_interp.viz.token_weights import (
    token_weights_difference_figure as token_weights_difference_figure,
)
from mudd_interp.viz.token_weights import token_weights_figure as token_weights_figure
from mudd_interp.viz.token_weights import token_weights_limit as token_weights_limit
from mudd_interp.viz.weights import Statistic as Statistic
from mudd_interp.viz.weights import weights_difference_figure as weights_difference_figure
from mudd_interp.viz.weights import weights_figure as weights_figure
from mudd_interp.viz.weights import weights_limit as weights_limit
from mudd_interp.viz.weights_over_image import (
    weights_over_image_figure as weights_over_image_figure,
)
