"""Analyses: a hooked model and batches of tokens -> frozen results with a table and a provenance.

An analysis works on whatever satisfies :class:`mudd_interp.protocol.HookedModel`, so one piece of
code serves MUDDFormer and the plain Transformer beside it.
"""

from mudd_interp.analysis.ablation import EFFECTS as EFFECTS
from mudd_interp.analysis.ablation import AblationAnalysis as AblationAnalysis
from mudd_interp.analysis.ablation import AblationSweep as AblationSweep
from mudd_interp.analysis.ablation import ablation_sweep as ablation_sweep
from mudd_interp.analysis.activation_files import save_activations as save_activations
from mudd_interp.analysis.activations import activations as activations
from mudd_interp.analysis.attribution import EdgeAttribution as EdgeAttribution
from mudd_interp.analysis.attribution import EdgeAttributionAnalysis as EdgeAttributionAnalysis
from mudd_interp.analysis.attribution import edge_attribution as edge_attribution
from mudd_interp.analysis.base import Accumulator as Accumulator
from mudd_interp.analysis.base import Analysis as Analysis
from mudd_interp.analysis.base import Tape as Tape
from mudd_interp.analysis.causes import rank_correlations as rank_correlations
from mudd_interp.analysis.causes import spearman as spearman
from mudd_interp.analysis.causes import static_edits as static_edits
from mudd_interp.analysis.causes import static_vs_dynamic as static_vs_dynamic
from mudd_interp.analysis.causes import weight_contribution_cause as weight_contribution_cause
from mudd_interp.analysis.class_attribution import ClassAttribution as ClassAttribution
from mudd_interp.analysis.class_attribution import class_attribution as class_attribution
from mudd_interp.analysis.comparison import LossComparison as LossComparison
from mudd_interp.analysis.comparison import LossComparisonAnalysis as LossComparisonAnalysis
from mudd_interp.analysis.comparison import LossSummary as LossSummary
from mudd_interp.analysis.comparison import compare_losses as compare_losses
from mudd_interp.analysis.comparison import ranked_texts as ranked_texts
from mudd_interp.analysis.composition import Composition as Composition
from mudd_interp.analysis.composition import CompositionTable as CompositionTable
from mudd_interp.analysis.composition import composition as composition
from mudd_interp.analysis.composition import composition_table as composition_table
from mudd_interp.analysis.delta_weights import DeltaWeights as DeltaWeights
from mudd_interp.analysis.delta_weights import DeltaWeightsAnalysis as DeltaWeightsAnalysis
from mudd_interp.analysis.delta_weights import delta_difference as delta_difference
from mudd_interp.analysis.delta_weights import delta_weights as delta_weights
from mudd_interp.analysis.depth_read import depth_frame as depth_frame
from mudd_interp.analysis.depth_read import depth_read as depth_read
from mudd_interp.analysis.depth_read import row_weights as row_weights
from mudd_interp.analysis.detectors import SCORES as SCORES
from mudd_interp.analysis.detectors import HeadScores as HeadScores
from mudd_interp.analysis.detectors import HeadScoresAnalysis as HeadScoresAnalysis
from mudd_interp.analysis.detectors import Score as Score
from mudd_interp.analysis.detectors import head_scores as head_scores
from mudd_interp.analysis.difference import check_same_rows as check_same_rows
from mudd_interp.analysis.difference import counterpart as counterpart
from mudd_interp.analysis.distributed import merge_over_ranks as merge_over_ranks
from mudd_interp.analysis.distributed import rank_and_world_size as rank_and_world_size
from mudd_interp.analysis.distributed import sweep_over_ranks as sweep_over_ranks
from mudd_interp.analysis.distribution import WeightDistribution as WeightDistribution
from mudd_interp.analysis.distribution import (
    WeightDistributionAnalysis as WeightDistributionAnalysis,
)
from mudd_interp.analysis.distribution import weight_distribution as weight_distribution
from mudd_interp.analysis.edge_patch import EdgePatch as EdgePatch
from mudd_interp.analysis.edge_patch import edge_patch as edge_patch
from mudd_interp.analysis.edge_sizes import EdgeSizes as EdgeSizes
from mudd_interp.analysis.edge_sizes import EdgeSizesAnalysis as EdgeSizesAnalysis
from mudd_interp.analysis.edge_sizes import edge_sizes as edge_sizes
from mudd_interp.analysis.edges import edge_index as edge_index
from mudd_interp.analysis.entropy import HeadEntropy as HeadEntropy
from mudd_interp.analysis.entropy import HeadEntropyAnalysis as HeadEntropyAnalysis
from mudd_interp.analysis.entropy import head_entropy as head_entropy
from mudd_interp.analysis.head_inputs import HeadInputs as HeadInputs
from mudd_interp.analysis.head_inputs import HeadInputsAnalysis as HeadInputsAnalysis
from mudd_interp.analysis.head_inputs import head_inputs as head_inputs
from mudd_interp.analysis.head_tables import activity_difference as activity_difference
from mudd_interp.analysis.head_tables import heads_table as heads_table
from mudd_interp.analysis.heads import SINK_TEXTS as SINK_TEXTS
from mudd_interp.analysis.heads import HeadActivity as HeadActivity
from mudd_interp.analysis.heads import HeadActivityAnalysis as HeadActivityAnalysis
from mudd_interp.analysis.heads import default_sinks as default_sinks
from mudd_interp.analysis.heads import head_activity as head_activity
from mudd_interp.analysis.in_context import InContextLoss as InContextLoss
from mudd_interp.analysis.in_context import InContextLossAnalysis as InContextLossAnalysis
from mudd_interp.analysis.in_context import in_context_loss as in_context_loss
from mudd_interp.analysis.inputs import check_position as check_position
from mudd_interp.analysis.lens import LogitLens as LogitLens
from mudd_interp.analysis.lens import logit_lens as logit_lens
from mudd_interp.analysis.logit_attribution import LogitAttribution as LogitAttribution
from mudd_interp.analysis.logit_attribution import (
    direct_logit_attribution as direct_logit_attribution,
)
from mudd_interp.analysis.norms import StreamNorms as StreamNorms
from mudd_interp.analysis.norms import StreamNormsAnalysis as StreamNormsAnalysis
from mudd_interp.analysis.norms import norms_difference as norms_difference
from mudd_interp.analysis.norms import stream_norms as stream_norms
from mudd_interp.analysis.patch_similarity import PatchSimilarity as PatchSimilarity
from mudd_interp.analysis.patch_similarity import (
    PatchSimilarityAnalysis as PatchSimilarityAnalysis,
)
from mudd_interp.analysis.patch_similarity import patch_similarity as patch_similarity
from mudd_interp.analysis.patch_similarity import (
    patch_similarity_difference as patch_similarity_difference,
)
from mudd_interp.analysis.patch_sinks import PatchSinks as PatchSinks
from mudd_interp.analysis.patch_sinks import PatchSinksAnalysis as PatchSinksAnalysis
from mudd_interp.analysis.patch_sinks import patch_sinks as patch_sinks
from mudd_interp.analysis.path_coefficients import PathCoefficients as PathCoefficients
from mudd_interp.analysis.path_coefficients import path_coefficients as path_coefficients
from mudd_interp.analysis.predictions import Predictions as Predictions
from mudd_interp.analysis.predictions import check_same_tokens as check_same_tokens
from mudd_interp.analysis.predictions import loss_difference as loss_difference
from mudd_interp.analysis.predictions import predictions as predictions
from mudd_interp.analysis.provenance import Provenance as Provenance
from mudd_interp.analysis.read_weights import ReadWeights as ReadWeights
from mudd_interp.analysis.read_weights import read_weights as read_weights
from mudd_interp.analysis.relative_offsets import RelativeOffsets as RelativeOffsets
from mudd_interp.analysis.relative_offsets import (
    RelativeOffsetsAnalysis as RelativeOffsetsAnalysis,
)
from mudd_interp.analysis.relative_offsets import relative_offsets as relative_offsets
from mudd_interp.analysis.result import Result as Result
from mudd_interp.analysis.resumable import resumable_sweep as resumable_sweep
from mudd_interp.analysis.rollout import AttentionRollout as AttentionRollout
from mudd_interp.analysis.rollout import attention_rollout as attention_rollout
from mudd_interp.analysis.routes import Routes as Routes
from mudd_interp.analysis.routes import routes as routes
from mudd_interp.analysis.similarity import LayerSimilarity as LayerSimilarity
from mudd_interp.analysis.similarity import LayerSimilarityAnalysis as LayerSimilarityAnalysis
from mudd_interp.analysis.similarity import layer_similarity as layer_similarity
from mudd_interp.analysis.similarity import similarity_difference as similarity_difference
from mudd_interp.analysis.similarity_matrix import SimilarityMatrix as SimilarityMatrix
from mudd_interp.analysis.similarity_matrix import (
    SimilarityMatrixAnalysis as SimilarityMatrixAnalysis,
)
from mudd_interp.analysis.similarity_matrix import similarity_matrix as similarity_matrix
from mudd_interp.analysis.similarity_matrix import (
    similarity_matrix_difference as similarity_matrix_difference,
)
from mudd_interp.analysis.sinks import SinkSensitivity as SinkSensitivity
from mudd_interp.analysis.sinks import SinkSensitivityAnalysis as SinkSensitivityAnalysis
from mudd_interp.analysis.sinks import sink_sensitivity as sink_sensitivity
from mudd_interp.analysis.state_hooks import state_hooks as state_hooks
from mudd_interp.analysis.state_patch import RESTORED as RESTORED
from mudd_interp.analysis.state_patch import StatePatch as StatePatch
from mudd_interp.analysis.state_patch import state_patch as state_patch
from mudd_interp.analysis.stored_activations import StoredActivations as StoredActivations
from mudd_interp.analysis.stored_activations import open_activations as open_activations
from mudd_interp.analysis.stream_decomposition import StreamDecomposition as StreamDecomposition
from mudd_interp.analysis.stream_decomposition import (
    stream_decomposition as stream_decomposition,
)
from mudd_interp.analysis.stream_mixing import StreamMixing as StreamMixing
from mudd_interp.analysis.stream_mixing import StreamMixingAnalysis as StreamMixingAnalysis
from mudd_interp.analysis.stream_mixing import stream_mixing as stream_mixing
from mudd_interp.analysis.stream_weights import StreamWeights as StreamWeights
from mudd_interp.analysis.stream_weights import stream_weights as stream_weights
from mudd_interp.analysis.sweep import sweep as sweep
from mudd_interp.analysis.token_weights import TokenWeights as TokenWeights
from mudd_interp.analysis.token_weights import token_weights as token_weights
from mudd_interp.analysis.token_weights import (
    token_weights_difference as token_weights_difference,
)
from mudd_interp.analysis.vocabulary import check_same_vocabulary as check_same_vocabulary
from mudd_interp.analysis.vocabulary import joined_text as joined_text
from mudd_interp.analysis.vocabulary import token_texts as token_texts
from mudd_interp.analysis.walk import Progress as Progress
from mudd_interp.analysis.walk import walk as walk
from mudd_interp.analysis.weights import DenseWeights as DenseWeights
from mudd_interp.analysis.weights import DenseWeightsAnalysis as DenseWeightsAnalysis
from mudd_interp.analysis.weights import dense_weights as dense_weights
from mudd_interp.analysis.weights import rectify as rectify
from mudd_interp.analysis.weights import weights_difference as weights_difference
