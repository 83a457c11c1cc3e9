"""The sample, data sets, packing, generated scenes, normalisation."""

from rsdiff.data.folder import FolderDataset
from rsdiff.data.hyperspectral import HyperspectralDataset
from rsdiff.data.layout import LayoutDataset
from rsdiff.data.packed import PackedDataset
from rsdiff.data.paired import PairedDataset
from rsdiff.data.refsr import CnamCdDataset, SecondDataset
from rsdiff.data.synthetic import SyntheticDataset

DATASETS: dict[str, type] = {
    "cnam_cd": CnamCdDataset,
    "folder": FolderDataset,
    "hyperspectral": HyperspectralDataset,
    "layout": LayoutDataset,
    "packed": PackedDataset,
    "paired": PairedDataset,
    "second": SecondDataset,
    "synthetic": SyntheticDataset,
}
"""Every kind of data set a config file may name, and the class of its options."""

__all__ = [
    "DATASETS",
    "CnamCdDataset",
    "FolderDataset",
    "HyperspectralDataset",
    "LayoutDataset",
    "PackedDataset",
    "PairedDataset",
    "SecondDataset",
    "SyntheticDataset",
]
