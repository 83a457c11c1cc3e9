"""What the cells of a sweep on one machine tell their processes of what they share."""

CELLS_PER_GPU = "RSDIFF_CELLS_PER_GPU"
"""Environment: how many cells of a sweep share a GPU, set with the GPU itself."""
