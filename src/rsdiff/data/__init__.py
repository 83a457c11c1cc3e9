"""The sample, data sets, packing, generated scenes, normalisation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rsdiff.config.kinds import Kinds, on_demand

if TYPE_CHECKING:
    from rsdiff.data.folder import FolderDataset as FolderDataset
    from rsdiff.data.hyperspectral import HyperspectralDataset as HyperspectralDataset
    from rsdiff.data.layout import LayoutDataset as LayoutDataset
    from rsdiff.data.packed import PackedDataset as PackedDataset
    from rsdiff.data.paired import PairedDataset as PairedDataset
    from rsdiff.data.refsr import CnamCdDataset as CnamCdDataset
    from rsdiff.data.refsr import SecondDataset as SecondDataset
    from rsdiff.data.synthetic import SyntheticDataset as SyntheticDataset

DATASETS = Kinds(
    {
        "cnam_cd": "rsdiff.data.refsr:CnamCdDataset",
        "folder": "rsdiff.data.folder:FolderDataset",
        "hyperspectral": "rsdiff.data.hyperspectral:HyperspectralDataset",
        "layout": "rsdiff.data.layout:LayoutDataset",
        "packed": "rsdiff.data.packed:PackedDataset",
        "paired": "rsdiff.data.paired:PairedDataset",
        "second": "rsdiff.data.refsr:SecondDataset",
        "synthetic": "rsdiff.data.synthetic:SyntheticDataset",
    }
)
"""Every kind of data set a config file may name, and the class of its options."""

_MODULES = {
    "CnamCdDataset": "refsr",
    "FolderDataset": "folder",
    "HyperspectralDataset": "hyperspectral",
    "LayoutDataset": "layout",
    "PackedDataset": "packed",
    "PairedDataset": "paired",
    "SecondDataset": "refsr",
    "SyntheticDataset": "synthetic",
}
__getattr__ = on_demand(__name__, _MODULES)
