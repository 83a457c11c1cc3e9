"""The sample, data sets, packing, generated scenes, normalisation."""

from rsdiff.data.folder import FolderDataset, PairedDataset
from rsdiff.data.layout import LayoutDataset
from rsdiff.data.packed import PackedDataset
from rsdiff.data.synthetic import SyntheticDataset

DATASETS: dict[str, type] = {
    "folder": FolderDataset,
    "layout": LayoutDataset,
    "packed": PackedDataset,
    "paired": PairedDataset,
    "synthetic": SyntheticDataset,
}
"""Every kind of data set a config file may name, and the class of its options."""

__all__ = ["DATASETS", "FolderDataset", "LayoutDataset", "PackedDataset", "PairedDataset", "SyntheticDataset"]
