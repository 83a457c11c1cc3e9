"""CUDA's rules of mixed precision on the pretended accelerator: which operation computes in which type under `torch.autocast`.

A CPU has other lists (and no convolutions of 16 bits that are fast), so its own autocast says nothing of a GPU's. Values are rounded to the
type of 16 bits at the same places as on CUDA; sums inside a kernel, which CUDA makes in float32, are those of PyTorch's CPU kernels.
Source of the lists: PyTorch, aten/src/ATen/autocast_mode.h (2.11 to 2.14).
"""

from __future__ import annotations

import functools
from typing import Any, Literal

import torch
import torch.utils._pytree as tree
from torch import Tensor

from tests.devices.pretended import NAME, device

Rule = Literal["lower", "float32", "float32 result", "widest"]

LISTS: dict[Rule, str] = {
    "lower": (
        "conv1d conv2d conv3d conv1d.padding conv2d.padding conv3d.padding conv_tbc conv_transpose1d conv_transpose2d.input "
        "conv_transpose3d.input convolution prelu addmm addmv addr matmul einsum mm mv linalg_vecdot linear addbmm baddbmm bmm "
        "chain_matmul linalg_multi_dot scaled_dot_product_attention"
    ),
    "float32": (
        "acos asin cosh erfinv exp expm1 log log10 log2 log1p reciprocal rsqrt sinh tan pow.Tensor_Scalar pow.Tensor_Tensor pow.Scalar "
        "softplus layer_norm native_layer_norm group_norm nuclear_norm cosine_similarity poisson_nll_loss cosine_embedding_loss nll_loss "
        "nll_loss2d hinge_embedding_loss kl_div l1_loss smooth_l1_loss huber_loss mse_loss margin_ranking_loss soft_margin_loss "
        "triplet_margin_loss binary_cross_entropy_with_logits dist pdist cdist renorm logsumexp upsample_nearest2d upsample_nearest2d.vec "
        "upsample_bilinear2d upsample_bilinear2d.vec upsample_bicubic2d upsample_bicubic2d.vec _upsample_bilinear2d_aa "
        "_upsample_bicubic2d_aa _upsample_bilinear2d_aa.vec _upsample_bicubic2d_aa.vec"
    ),
    "float32 result": (
        "prod prod.dim_int softmax.int log_softmax.int cumprod cumsum linalg_vector_norm linalg_matrix_norm sum sum.dim_IntList"
    ),
    "widest": "addcdiv addcmul atan2 bilinear cross dot vdot grid_sampler index_put tensordot scatter_add cat stack",
}
"""Operations by what becomes of their arguments: cast to 16 bits; to float32; summed in float32; all cast to the widest among them."""
_KEYS = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastPrivateUse1)
_LIBRARY = torch.library.Library("aten", "IMPL")
_REST = torch.library.Library("_", "IMPL")


@functools.cache
def register() -> None:
    """Let `torch.autocast` of the pretended device follow CUDA's lists; once per process."""
    device()
    _REST.fallback(torch.library.fallthrough_kernel, "AutocastPrivateUse1")
    for rule, names in LISTS.items():
        for name in names.split():
            base, _, overload = name.partition(".")
            _LIBRARY.impl(name, _kernel(getattr(getattr(torch.ops.aten, base), overload or "default"), rule), "AutocastPrivateUse1")


def _kernel(operation: Any, rule: Rule) -> Any:
    names = [argument.name for argument in operation._schema.arguments]
    place = names.index("dtype") if "dtype" in names else len(names)

    def run(*args: Any, **kwargs: Any) -> Any:
        wanted: torch.dtype | None = {"lower": torch.get_autocast_dtype(NAME), "float32": torch.float32}.get(rule)
        if rule == "float32 result" and _is_cast(args[0]):
            given = kwargs.get("dtype") or next(iter(args[place:]), None)
            args, kwargs = args[:place], {**kwargs, "dtype": given or torch.float32}
        if rule == "widest":
            types = {leaf.dtype for leaf in tree.tree_leaves((args, kwargs)) if _is_cast(leaf)}
            wanted = torch.float32 if len(types) > 1 else None
        if wanted is not None:
            args, kwargs = tree.tree_map(lambda leaf: leaf.to(wanted) if _is_cast(leaf) else leaf, (list(args), kwargs))
        with torch._C._ExcludeDispatchKeyGuard(_KEYS):
            return operation(*args, **kwargs)

    return run


def _is_cast(leaf: Any) -> bool:
    return isinstance(leaf, Tensor) and leaf.is_floating_point() and leaf.dtype != torch.float64 and leaf.device.type == NAME
