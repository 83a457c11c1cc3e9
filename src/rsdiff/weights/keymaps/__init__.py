"""Key maps: one module per published family of checkpoints, one line per method kind."""

from rsdiff.weights.keymaps.base import KeyMap
from rsdiff.weights.keymaps.blinddiff import BlindDiffKeyMap
from rsdiff.weights.keymaps.blindsrsnf import BlindSRSNFKeyMap
from rsdiff.weights.keymaps.danv2 import DANv2KeyMap
from rsdiff.weights.keymaps.datsr import DATSRKeyMap
from rsdiff.weights.keymaps.dcls import DCLSKeyMap
from rsdiff.weights.keymaps.diffbsr import DiffBSRDDPMKeyMap, DiffBSRKeyMap, DiffBSRSRDiffKeyMap
from rsdiff.weights.keymaps.ediffsr import EDiffSRKeyMap
from rsdiff.weights.keymaps.edm_sr import EdmSrKeyMap
from rsdiff.weights.keymaps.hat import HATKeyMap
from rsdiff.weights.keymaps.idm import IDMKeyMap
from rsdiff.weights.keymaps.implicit import CiaoSRKeyMap, LMFCiaoSRKeyMap, LMFLIIFKeyMap, LMFLTEKeyMap, LTEKeyMap
from rsdiff.weights.keymaps.ldcsr import LCMSR, LDCSR, LDCSRVaeKeyMap
from rsdiff.weights.keymaps.liif import LIIFKeyMap, MetaSRKeyMap
from rsdiff.weights.keymaps.masa_sr import MASASRKeyMap
from rsdiff.weights.keymaps.modulated import DASRKeyMap, DRSRKeyMap
from rsdiff.weights.keymaps.refdiff import RefDiffKeyMap
from rsdiff.weights.keymaps.rrdb import ESRGANKeyMap, RRDBKeyMap
from rsdiff.weights.keymaps.sadn import SADNKeyMap
from rsdiff.weights.keymaps.scdm import SCDMKeyMap
from rsdiff.weights.keymaps.spectral_regression import AWANKeyMap, HSCNNPlusKeyMap, MSTLKeyMap, MSTPlusPlusKeyMap
from rsdiff.weights.keymaps.spsr import SPSRKeyMap
from rsdiff.weights.keymaps.sr3 import SR3KeyMap
from rsdiff.weights.keymaps.ttsr import TTSRKeyMap

KEY_MAPS: dict[str, KeyMap] = {
    "awan": AWANKeyMap(),
    "blinddiff": BlindDiffKeyMap(),
    "blindsrsnf": BlindSRSNFKeyMap(),
    "ciaosr": CiaoSRKeyMap(),
    "danv2": DANv2KeyMap(),
    "dasr": DASRKeyMap(),
    "datsr": DATSRKeyMap(),
    "dcls": DCLSKeyMap(),
    "diffbsr": DiffBSRKeyMap(),
    "diffbsr_ddpm": DiffBSRDDPMKeyMap(),
    "diffbsr_srdiff": DiffBSRSRDiffKeyMap(),
    "drsr": DRSRKeyMap(),
    "ediffsr": EDiffSRKeyMap(),
    "edm_sr": EdmSrKeyMap(),
    "idm": IDMKeyMap(),
    "esrgan": ESRGANKeyMap(),
    "hat": HATKeyMap(),
    "hscnn_plus": HSCNNPlusKeyMap(),
    "lcmsr": LCMSR,
    "ldcsr": LDCSR,
    "ldcsr_vae": LDCSRVaeKeyMap(),
    "liif": LIIFKeyMap(),
    "lmf_ciaosr": LMFCiaoSRKeyMap(),
    "lmf_liif": LMFLIIFKeyMap(),
    "lmf_lte": LMFLTEKeyMap(),
    "lte": LTEKeyMap(),
    "masa_sr": MASASRKeyMap(),
    "metasr": MetaSRKeyMap(),
    "mst_l": MSTLKeyMap(),
    "mstpp": MSTPlusPlusKeyMap(),
    "refdiff": RefDiffKeyMap(),
    "rrdb": RRDBKeyMap(),
    "sadn": SADNKeyMap(),
    "scdm": SCDMKeyMap(),
    "spsr": SPSRKeyMap(),
    "sr3": SR3KeyMap(),
    "ttsr": TTSRKeyMap(),
}
"""Key maps by method kind."""

__all__ = ["KEY_MAPS", "KeyMap"]
