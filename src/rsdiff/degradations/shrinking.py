"""Blur and shrink in one step: the blurred pixels that a shrunk image is made of are not computed all.

Both are linear. Four ways, by what is kept of the blurred pixels:
- Where kernels are products of a column and a row, so is everything: LR = R HR C, with the column in R and the row in C.
- "direct" keeps every s-th: a convolution with stride s.
- A separable shrink of a small image is two products of matrices: LR = sum over d of (R_d HR) C_d, where R_d shrinks the rows that lie d
  further and C_d blurs along a row with row d of the kernel and shrinks. Any border of blur and shrink is in the matrices.
- A large image shrunk by a whole factor: an LR pixel is one weighted sum of HR pixels, for the antialiased cubic at x4 and kernels of
  21 x 21 pixels, of 36 x 36. Inside the image the weights are the same everywhere (a convolution with stride s); the outer LR rows and
  columns, where the shrink repeats or mirrors blurred pixels at its border, have weights of their own.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from rsdiff.data.precision import in_float32
from rsdiff.degradations.blur import BlurBackend, blur, chosen_backend
from rsdiff.degradations.resizing import Border, ResizeBackend, cubic_taps, resize

BORDERS: dict[ResizeBackend, Border] = {"matlab": "symmetric", "clamped": "clamped"}
"""Shrinks that are products of matrices, and what they read beyond the image."""

SMALL = 96 * 96
"""HR pixels up to which products of matrices are fastest."""

SMALL_SEPARABLE = 512 * 512
"""The same for kernels that are products of a column and a row; beyond, most of the matrices is 0."""

PLANES = 64
"""Bands of images that are multiplied together: for each, h k W values are in memory."""

MOST_PRODUCTS = 200
"""Products per HR pixel up to which the sums are faster than a blur by Fourier transforms; 81 for 21 x 21 pixels at x4, 196 at x2."""

TOGETHER = 8
"""Planes that a convolution sums at once: an image of fewer is shared into strips of rows."""


def blur_and_resize(
    images: Tensor, kernels: Tensor, size: tuple[int, int], how: ResizeBackend, backend: BlurBackend, is_separable: bool
) -> Tensor:
    """Return `resize(blur(images, kernels, backend=backend), size, how)`, to 1e-6 of the range of the images.

    images   (N, C, H, W)
    kernels  (N, k, k), see `rsdiff.degradations.blur.blur`
    size     (h, w) of the result
    is_separable  whether every kernel is the product of its column sums and its row sums, and sums to 1
    With backend=auto both are one step on the CPU where no gradient is needed and `how` is matlab, clamped or direct.
    """
    height, width = images.shape[-2:]
    reach = kernels.shape[-1] // 2
    if backend == "auto" and chosen_backend(backend, images, kernels) == "opencv" and reach < min(height, width):
        factor = width // size[1]
        if is_separable:
            if how in BORDERS and height * width <= SMALL_SEPARABLE:
                return _by_rows_and_columns(images, kernels, size, how)
            return resize(blur(images, kernels, backend=backend), size, how)
        if how == "direct" and (size[0] * factor, size[1] * factor) == (height, width):
            return _every_pixel(images, kernels, factor)
        if how in BORDERS and height * width <= SMALL:
            return _by_products(images, kernels, size, how)
        rows, columns = (_axis(images.shape[axis], size[axis], factor, how, kernels.shape[-1]) for axis in (-2, -1))
        if rows is not None and columns is not None:
            return _by_sums(images, kernels, rows, columns)
    return resize(blur(images, kernels, backend=backend), size, how)


@in_float32
def _every_pixel(images: Tensor, kernels: Tensor, factor: int) -> Tensor:
    """Return every factor-th blurred pixel."""
    before, after = kernels.shape[-1] // 2, (kernels.shape[-1] - 1) // 2
    padded = F.pad(images, (before, after, before, after), mode="reflect").flatten(0, 1)[None]
    return _sums(padded, kernels[:, None], images.shape[1], factor)[:, 0].unflatten(0, images.shape[:2])


@in_float32
def _by_rows_and_columns(images: Tensor, kernels: Tensor, size: tuple[int, int], how: ResizeBackend) -> Tensor:
    """Return the blurred and shrunk images (N, C, h, w) for kernels that are products of a column and a row."""
    (count, bands, height, width), taps = images.shape, kernels.shape[-1]
    down = (kernels.sum(2) @ _shifted(height, size[0], how, taps)[2]).view(count, height, size[0])
    across = (kernels.sum(1) @ _shifted(width, size[1], how, taps)[2]).view(count, width, size[1])
    shrunk = torch.bmm(images.reshape(count, bands * height, width), across).view(count, bands, height, size[1])
    return down.mT[:, None] @ shrunk


@in_float32
def _by_products(images: Tensor, kernels: Tensor, size: tuple[int, int], how: ResizeBackend) -> Tensor:
    """Return the blurred and shrunk images (N, C, h, w) by products of matrices."""
    (count, bands, height, width), taps = images.shape, kernels.shape[-1]
    different, which, _ = _shifted(height, size[0], how, taps)
    along = (kernels.flatten(0, 1) @ _shifted(width, size[1], how, taps)[2]).view(count, taps * width, size[1])
    made = images.new_empty(count, bands, *size)
    for part in torch.arange(count).split(max(1, PLANES // bands)):
        chosen = slice(int(part[0]), int(part[-1]) + 1)
        shrunk = (different @ images[chosen].flatten(0, 1)).index_select(1, which).view(len(part), bands * size[0], taps * width)
        made[chosen] = torch.bmm(shrunk, along[chosen]).unflatten(1, (bands, size[0]))
    return made


@functools.lru_cache(maxsize=64)
def _shifted(length: int, out: int, how: ResizeBackend, taps: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return how LR pixels are made of HR pixels that lie d further, for every d of a kernel's `taps`, mirrored at the border.

    (m, H) the rows of that which differ: inside the image, LR pixel i + 1 sees what i sees s pixels further
    (h taps,) which of them belongs to LR pixel i and shift d
    (taps, H h) the same for columns, by shift
    """
    shrink = _shrink(length, out, how)
    shifted = shrink.new_zeros(out, taps, length)
    for shift in range(taps):
        seen = (torch.arange(length) + shift - taps // 2).abs()
        shifted[:, shift].index_add_(1, torch.minimum(seen, 2 * (length - 1) - seen), shrink)
    shifted = shifted.float()
    different, which = shifted.flatten(0, 1).unique(dim=0, return_inverse=True)
    return different, which, shifted.permute(1, 2, 0).flatten(1).contiguous()


def _shrink(length: int, out: int, how: ResizeBackend) -> Tensor:
    """Return the matrix (h, H) float64 that shrinks along one axis."""
    indices, weights = cubic_taps(length, out, out / length, BORDERS[how])
    return weights.new_zeros(out, length).scatter_add_(1, indices, weights)


@dataclass(frozen=True, eq=False)
class Axis:
    """How LR pixels are made of HR pixels along one axis, by the shrink and by a kernel of k pixels.

    factor  HR pixels per LR pixel
    before  HR pixels in front of i * factor where the window of LR pixel i begins
    shrink  (h, H) float32, how an LR pixel is made of blurred pixels
    first   LR pixels first .. last - 1 have the same weights; `border` names those before and behind, which have weights of their own
    inner   (window, k) float64: a kernel's rows -> weights of the window of an inner LR pixel
    outer   (border, window, k) float64: the same for each LR pixel at the border
    """

    factor: int
    before: int
    shrink: Tensor
    first: int
    last: int
    inner: Tensor
    outer: Tensor

    @property
    def window(self) -> int:
        return len(self.inner)

    @property
    def border(self) -> list[int]:
        return [*range(self.first), *range(self.last, len(self.shrink))]

    @property
    def part(self) -> slice:
        """The HR pixels, of those that begin `before` the image, that the inner LR pixels see."""
        return slice(self.first * self.factor, (self.last - 1) * self.factor + self.window)


@functools.lru_cache(maxsize=64)
def _axis(length: int, out: int, factor: int, how: ResizeBackend, size: int) -> Axis | None:
    """Return how `out` LR pixels are made of `length` HR pixels blurred by kernels of `size`; None where that is no convolution inside
    the image, or no faster way."""
    if factor < 2 or out * factor != length or how not in BORDERS:
        return None
    shrink = _shrink(length, out, how)
    used = shrink[out // 2].nonzero()
    before, seen = out // 2 * factor - int(used[0]), int(used[-1] - used[0]) + 1
    position = (torch.arange(out) * factor - before)[:, None] + torch.arange(seen)
    inside = (position >= 0) & (position < length)
    weights = torch.where(inside, shrink.gather(1, position.clamp(0, length - 1)), 0)
    inner, window = inside.all(1).nonzero(), seen + size - 1
    if not len(inner) or window**2 > MOST_PRODUCTS * factor**2 or before + size // 2 + factor >= length:
        return None
    assert torch.allclose(weights.sum(1), shrink.sum(1)), "an LR pixel at the border is made of pixels that an inner one would not see"
    joined = weights.new_zeros(out, window, size)
    for row in range(size):
        joined[:, row : row + seen, row] = weights
    first, last = int(inner[0]), int(inner[-1]) + 1
    return Axis(factor, before, shrink.float(), first, last, joined[first], torch.cat([joined[:first], joined[last:]]))


@in_float32
def _by_sums(images: Tensor, kernels: Tensor, rows: Axis, columns: Axis) -> Tensor:
    """Return the blurred and shrunk images (N, C, h, w) by a sum per LR pixel."""
    count, bands, _, width = images.shape
    size = kernels.shape[-1]
    weights = kernels.to(torch.float64)
    front = size // 2 + rows.before
    behind = max(0, rows.window - rows.factor - front)
    middle = images.mean((-2, -1), keepdim=True)  # long sums of float32 lose less where they stay near 0
    padded = F.pad(images - middle, (front, behind, front, behind), mode="reflect").flatten(0, 1)[None]

    down = rows.inner @ weights
    made = images.new_empty(count * bands, len(rows.shrink), len(columns.shrink))
    inner = made[:, rows.first : rows.last, columns.first : columns.last]
    strips = next(number for number in (8, 6, 5, 4, 3, 2, 1) if inner.shape[1] % number == 0) if count * bands < TOGETHER else 1
    seen = _strips(padded[:, :, rows.part, columns.part], rows, strips)
    inner[:] = _sums(seen, (down @ columns.inner.mT)[:, None].expand(-1, strips, -1, -1), bands, rows.factor).flatten(1, 2)
    if columns.border:
        seen = _windows(padded[:, :, rows.part], columns, -1)
        made[:, rows.first : rows.last, columns.border] = _sums(seen, down[:, None] @ columns.outer.mT, bands, rows.factor)[..., 0].mT
    if rows.border:
        seen = _windows(padded[..., columns.before : columns.before + width + size - 1], rows, -2)
        made[:, rows.border] = _sums(seen, rows.outer @ weights[:, None], bands, 1)[:, :, 0] @ columns.shrink.mT
    return made.unflatten(0, (count, bands)).add_(middle * weights.sum((-2, -1)).to(middle)[:, None, None, None])


def _strips(seen: Tensor, rows: Axis, number: int) -> Tensor:
    """Return what the inner LR rows see in strips of as many of them: (1, planes, H, W) -> (1, planes * number, ..)."""
    step = (rows.last - rows.first) // number * rows.factor
    return seen.unfold(2, step - rows.factor + rows.window, step).movedim(-1, 3).flatten(1, 2)


def _windows(padded: Tensor, axis: Axis, along: int) -> Tensor:
    """Return the windows of the LR pixels at the border of an axis: (1, planes, H, W) -> (1, planes * border, ..)."""
    return torch.stack([padded.narrow(along, pixel * axis.factor, axis.window) for pixel in axis.border], 2).flatten(1, 2)


def _sums(seen: Tensor, weights: Tensor, bands: int, stride: int) -> Tensor:
    """Return sums of `seen` (1, N * C * B, ..) with weights (N, B, ..), the same for all C bands: (N * C, B, ..)."""
    each = weights.to(torch.float32).repeat_interleave(bands, 0).flatten(0, 1)[:, None]
    return F.conv2d(seen, each, stride=stride, groups=len(each))[0].unflatten(0, (-1, weights.shape[1]))
