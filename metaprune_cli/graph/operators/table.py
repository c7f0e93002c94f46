"""One table, by operator. Adding an operator is one row here and one test.

An operator is called as in ``torch.ops.aten``, or with its namespace; names in one row share it. What a row leaves out
follows from the operator's nature (:func:`.registry.operator_of`).
"""

from __future__ import annotations

from metaprune_cli.graph.operators import on_survivors
from metaprune_cli.graph.operators.operator import Operator
from metaprune_cli.graph.program import guards
from metaprune_cli.graph.program import rewrite_moves as moved
from metaprune_cli.graph.program import rewrite_sizes as sizes
from metaprune_cli.graph.trace.rules import elementwise, indexing, order, resampling, zeros
from metaprune_cli.graph.trace.rules.contractions import convolution, embedding, linear, matrix_product
from metaprune_cli.graph.trace.rules.lesser_contractions import (
    deformable_convolution,
    distances,
    embedding_bag,
    grouped_product,
    trilinear,
)
from metaprune_cli.graph.trace.rules.moves import channel_shuffle, forgets, moves, passes, restrided, split, view
from metaprune_cli.graph.trace.rules.norms import batch_norm, group_norm, layer_norm, softmax
from metaprune_cli.graph.trace.rules.parameters import weight_norm
from metaprune_cli.graph.trace.rules.reductions import pools, reduces
from metaprune_cli.graph.trace.rules.writes import copies, sized

pointwise, scatter = elementwise.pointwise, indexing.scatter
all_operands = zeros.all_operands

VIEWS = (
    ("view _unsafe_view reshape", Operator(view, rewrite=sizes.sizes)),
    ("unflatten", Operator(view)),
    ("expand", Operator(rewrite=sizes.sizes)),
    ("transpose_ swapaxes_ t_ squeeze_ unsqueeze_ movedim", Operator(moves)),
    ("expand_copy permute_copy slice_copy select_copy _reshape_copy", Operator(moves)),
    ("slice", Operator(rewrite=moved.slices)),
    ("select", Operator(rewrite=moved.picks)),
    ("squeeze", Operator(rewrite=moved.squeezes)),
    ("unbind", Operator(rewrite=moved.unbinds)),
    ("unfold diagonal", Operator(rewrite=moved.by_example)),
    ("unfold_copy", Operator(moves, rewrite=moved.by_example)),
    ("split split_with_sizes unsafe_split", Operator(split, rewrite=sizes.splits)),
    ("unsafe_split_with_sizes", Operator(rewrite=sizes.splits, in_programs=True)),
    ("chunk split_copy split_with_sizes_copy", Operator(split)),
    ("as_strided", Operator(rewrite=sizes.strided, in_programs=False)),  # shows what lies beside a tensor
    ("as_strided_", Operator(restrided, rewrite=sizes.relaid, guard=guards.relaid)),
    ("_reshape_alias", Operator(rewrite=sizes.sizes, in_programs=False)),
    ("view_as_complex", Operator(resampling.complex_pairs)),
    ("view_as_real", Operator(resampling.complex_parts)),
    ("real imag conj", Operator(keeps_zero=all_operands)),
)

MOVES = (
    ("clone contiguous _to_copy detach alias lift_fresh dropout", Operator(passes, all_operands)),
    ("native_dropout", Operator(passes, zeros.first_operand)),
    ("lift_fresh_copy bernoulli", Operator(passes)),
    ("copy_", Operator(copies, rewrite=sizes.aligned)),
    ("cat", Operator(order.joins, all_operands, sizes.joined)),
    ("stack", Operator(order.stacks, all_operands, sizes.joined)),
    ("flip repeat tril triu", Operator(moves, all_operands)),
    ("rot90 pixel_shuffle pixel_unshuffle repeat_interleave", Operator(moves, all_operands, moved.by_example)),
    ("channel_shuffle native_channel_shuffle", Operator(channel_shuffle, all_operands, moved.by_example)),
    ("roll", Operator(moves, all_operands, moved.rolls)),
    ("constant_pad_nd", Operator(moves, zeros.padded, moved.pads)),
    ("im2col", Operator(resampling.unfolds, all_operands)),
    ("col2im", Operator(resampling.folds, all_operands)),
    ("index", Operator(indexing.index, all_operands, moved.indexes)),
    ("_unsafe_index", Operator(indexing.index, rewrite=moved.indexes)),
    ("index_select", Operator(indexing.index_select, all_operands, moved.index_selects)),
    ("gather", Operator(indexing.gather, all_operands, moved.gathers)),
    ("index_put", Operator(indexing.index_put, all_operands, moved.indexes)),
    ("index_put_ _unsafe_index_put", Operator(indexing.index_put, rewrite=moved.indexes)),
    ("scatter scatter_add", Operator(scatter, all_operands, moved.gathers)),
    ("scatter_ scatter_add_ scatter_reduce scatter_reduce_", Operator(scatter, rewrite=moved.gathers)),
    ("index_add", Operator(scatter, all_operands, moved.adds_at)),
    ("index_add_ index_copy index_copy_", Operator(scatter, rewrite=moved.adds_at)),
    ("index_reduce index_reduce_", Operator(scatter)),
    ("grid_sampler_2d grid_sampler_3d max_unpool2d max_unpool3d", Operator(resampling.looks_up, all_operands)),
    (
        "torchvision::roi_align torchvision::roi_pool",
        Operator(resampling.looks_up, all_operands, guard=guards.boxes),
    ),
    ("torchvision::_roi_align", Operator(resampling.looks_up)),
)

ELEMENTWISE = (
    ("neg abs sign round floor ceil trunc square sqrt nan_to_num", Operator(keeps_zero=all_operands)),
    ("sin tan sinh tanh asin atan erf expm1 log1p", Operator(keeps_zero=all_operands)),
    ("relu hardtanh silu gelu mish elu celu selu leaky_relu threshold", Operator(keeps_zero=all_operands)),
    ("hardshrink softshrink maximum minimum", Operator(keeps_zero=all_operands)),
    ("hardswish relu6 prelu _prelu_kernel", Operator(pointwise, all_operands)),
    ("add sub rsub", Operator(keeps_zero=zeros.unshifted)),
    ("clamp clamp_min", Operator(keeps_zero=zeros.clamped)),
    ("clamp_max", Operator(keeps_zero=zeros.clamped_above)),
    ("mul", Operator(keeps_zero=zeros.any_operand)),
    ("div", Operator(keeps_zero=zeros.first_operand, guard=guards.quotient)),
    ("div_", Operator(pointwise, guard=guards.quotient)),
    ("true_divide", Operator(keeps_zero=zeros.first_operand)),
    (
        "hardswish_ hardsigmoid_ hardtanh_ relu_ elu_ silu_ mish_ leaky_relu_ gelu_ celu_ threshold_",
        Operator(pointwise),
    ),
    ("add_ sub_ mul_ clamp_ sigmoid_ tanh_", Operator(pointwise)),
    ("lerp addcmul pow", Operator(pointwise, all_operands, sizes.aligned)),
    ("floor_divide addcdiv masked_fill_", Operator(pointwise, rewrite=sizes.aligned)),
    ("masked_fill", Operator(pointwise, zeros.first_operand, sizes.aligned)),
    ("where", Operator(pointwise, zeros.unshifted, sizes.aligned)),
    ("rrelu_with_noise", Operator(pointwise, guard=guards.noisy)),
    ("glu", Operator(order.halves, all_operands)),
)

CONTRACTIONS = (
    ("convolution", Operator(convolution, zeros.own_weights, sizes.convolution)),
    ("_convolution", Operator(convolution)),
    ("linear", Operator(linear, zeros.own_weights)),
    ("addmm baddbmm", Operator(matrix_product, zeros.own_weights, sizes.product)),
    ("mm bmm", Operator(matrix_product, zeros.any_operand, sizes.product)),
    ("mv dot vdot", Operator(matrix_product, zeros.any_operand)),
    ("cdist _cdist_forward _euclidean_dist", Operator(distances, in_programs=True)),
    ("addmv", Operator(matrix_product)),
    ("embedding", Operator(embedding)),
    ("_embedding_bag", Operator(embedding_bag, guard=guards.bags)),
    ("_embedding_bag_forward_only", Operator(embedding_bag, rewrite=sizes.differentiable, guard=guards.bags)),
    ("_trilinear", Operator(trilinear)),
    ("_grouped_mm", Operator(grouped_product, zeros.any_operand, guard=guards.grouped)),
    ("torchvision::deform_conv2d", Operator(deformable_convolution, guard=guards.deformed)),
    (
        "_weight_norm_interface _weight_norm",
        Operator(weight_norm, on_survivors=on_survivors.zeros_serve, guard=guards.weight_norm),
    ),
    # its neurons are traced through its elementary operators
    (
        "scaled_dot_product_attention",
        Operator(rewrite=sizes.attention, guard=guards.attention, in_programs=True),
    ),
)

MIXING = (
    (
        "native_batch_norm _native_batch_norm_legit_no_training",
        Operator(batch_norm, zeros.own_scale, None, on_survivors.batch_norm, guards.batch_norm),
    ),
    (
        "_native_batch_norm_legit _native_batch_norm_legit_functional "
        "_batch_norm_no_update _batch_norm_with_update cudnn_batch_norm miopen_batch_norm",
        Operator(batch_norm, on_survivors=on_survivors.batch_norm, guard=guards.batch_norm),
    ),
    (
        "native_layer_norm _fused_rms_norm",
        Operator(layer_norm, zeros.own_scale, sizes.normalised_shape, on_survivors.layer_norm),
    ),
    ("native_group_norm", Operator(group_norm, zeros.own_scale, sizes.group_norm, on_survivors.group_norm)),
    ("_softmax _log_softmax _safe_softmax", Operator(softmax, on_survivors=on_survivors.along)),
    ("sum", Operator(reduces, all_operands, on_survivors=on_survivors.zeros_serve)),
    (
        "mean amax amin max min var std prod linalg_vector_norm norm",
        Operator(reduces, all_operands, on_survivors=on_survivors.reduces),
    ),
    ("var_mean logsumexp median argmax argmin any all", Operator(reduces, on_survivors=on_survivors.reduces)),
    ("std_mean nanmedian", Operator(on_survivors=on_survivors.reduces)),
    ("sort topk cumsum cummax cummin", Operator(order.along, all_operands)),
    ("argsort kthvalue mode cumprod logcumsumexp cumsum_ cumprod_ renorm unique_dim", Operator(order.along)),
    ("_pack_padded_sequence _pad_packed_sequence", Operator(order.packs, all_operands, in_programs=False)),
    ("_fft_c2r", Operator(order.transforms, all_operands, guard=guards.real_from_complex)),
    ("_fft_r2c _fft_c2c", Operator(order.transforms, all_operands, guard=guards.transformed)),
)

_PADDING, _POOLING, _RESAMPLING = (
    [Operator(pools(dims), *rest) for dims in (1, 2, 3)]
    for rest in ((), (all_operands,), (all_operands, None, None, guards.resampled))
)
POSITIONS = (
    ("reflection_pad1d replication_pad1d", _PADDING[0]),
    ("reflection_pad2d replication_pad2d", _PADDING[1]),
    ("reflection_pad3d replication_pad3d", _PADDING[2]),
    ("avg_pool1d", _POOLING[0]),
    ("avg_pool2d _adaptive_avg_pool2d adaptive_max_pool2d max_pool2d_with_indices", _POOLING[1]),
    ("avg_pool3d _adaptive_avg_pool3d adaptive_max_pool3d max_pool3d_with_indices", _POOLING[2]),
    ("upsample_nearest1d upsample_linear1d", _RESAMPLING[0]),
    ("upsample_nearest2d _upsample_nearest_exact2d upsample_bilinear2d", _RESAMPLING[1]),
    ("_upsample_bilinear2d_aa upsample_bicubic2d _upsample_bicubic2d_aa", _RESAMPLING[1]),
    ("upsample_nearest3d upsample_trilinear3d", _RESAMPLING[2]),
)

CREATED = (
    ("zeros ones full rand randn", Operator(rewrite=moved.creates, in_programs=True)),
    ("empty", Operator(rewrite=moved.creates, guard=guards.empty, in_programs=True)),
    ("new_zeros new_ones new_full", Operator(forgets, rewrite=moved.creates)),
    ("new_empty", Operator(forgets, rewrite=moved.creates, guard=guards.new_empty)),
    ("new_empty_strided", Operator(forgets, in_programs=False)),
    ("zeros_like", Operator(sized, all_operands)),
    ("zero", Operator(keeps_zero=all_operands)),
    ("empty_like", Operator(sized, guard=guards.empty_like)),
    ("ones_like full_like rand_like randn_like fill", Operator(sized)),
    ("zero_ fill_ bernoulli_ uniform_ normal_", Operator(sized)),
    ("arange linspace eye scalar_tensor tril_indices triu_indices", Operator(in_programs=True)),
    ("randint randperm randint_like normal", Operator(in_programs=True)),
)

# Computed without a rule: their neurons are locked, but a program runs them; each checks its arguments itself.
PROGRAMS_ONLY = (
    ("affine_grid_generator outer trace kron take one_hot _conj", Operator(in_programs=True)),
    ("linalg_cross linalg_matrix_exp linalg_inv_ex linalg_solve_triangular", Operator(in_programs=True)),
    ("bucketize searchsorted isin histc count_nonzero diag_embed", Operator(in_programs=True)),
    ("nonzero masked_select _unique2 torchvision::nms", Operator(in_programs=True)),
)

REFUSED = (
    ("_local_scalar_dense", Operator(forgets, rewrite=sizes.reads)),
    ("slice_inverse", Operator(in_programs=False)),  # shows what lies beside a tensor
    ("indices values crow_indices col_indices ccol_indices row_indices coalesce", Operator(in_programs=False)),
    ("_to_dense", Operator(passes, in_programs=False)),  # of sparse tensors, as those above
    ("to cpu cuda pin_memory as_tensor sorted dict", Operator(in_programs=False)),  # not for tensors on one device
    ("copy", Operator(keeps_zero=all_operands, in_programs=False)),
)

GROUPS = (VIEWS, MOVES, ELEMENTWISE, CONTRACTIONS, MIXING, POSITIONS, CREATED, PROGRAMS_ONLY, REFUSED)
ROWS = {
    name if "::" in name else f"aten::{name}": row for group in GROUPS for names, row in group for name in names.split()
}
"""By qualified name."""
