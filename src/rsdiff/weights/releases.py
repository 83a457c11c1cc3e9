"""Where the authors of a method publish their code and weights, and under which licence.

Everything here was read in the repositories named, at the commits given: the addresses in their README or code, the licence in their file
LICENSE. Nothing is downloaded by rsdiff; the documentation and messages name the addresses. docs/addresses.md lists all of them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

DRIVE = "https://drive.google.com"
NONE_STATED = "none stated"


@dataclass(frozen=True)
class Release:
    """A published repository.

    repository  owner/name on GitHub
    commit      at which it was read
    licence     of the code, by its usual name; NONE_STATED where the repository has no licence file
    weights     address of the released weights; "" where none are released, or none of this configuration
    note        what a reader must know of the weights besides
    """

    repository: str
    commit: str
    licence: str
    weights: str = ""
    note: str = ""

    @property
    def address(self) -> str:
        return f"https://github.com/{self.repository}"


_DAN = Release(
    "greatlog/DAN",
    "4c4de00",
    NONE_STATED,
    f"{DRIVE}/drive/folders/1aOaxXFfMAM6GvvPz56lzUwVmg7BMM_mR",
    "a folder for DANv1, DANv2 and IKC",
)
_DCLS = Release("megvii-research/DCLS-SR", "3314f42", "MIT", f"{DRIVE}/drive/folders/135xCCLWSylBaNxh6B3I_UnCeox8AkVzC")
_DIFFBSR = Release(
    "Meng-333/DiffBSR", "fdbf5b3", NONE_STATED, f"{DRIVE}/file/d/1TeWlhkRCxA0sIdquEvbirDO7tWiZwO_2", "isotropic, anisotropic and UC Merced"
)
_BLINDSRSNF = Release("hanlinwu/BlindSRSNF", "462ff54", NONE_STATED, "http://39.105.181.16:5244/d/aliyun/Share/BlindSRSNF/logs.zip")
_SR3 = Release("Janspiry/Image-Super-Resolution-via-Iterative-Refinement", "01d27a7", "Apache-2.0")
_EDM = Release("NVlabs/edm", "008a4e5", "CC BY-NC-SA 4.0", "https://nvlabs-fi-cdn.nvidia.com/edm/pretrained/", "to start from")
_ESRGAN = Release("xinntao/ESRGAN", "73e9b63", "Apache-2.0", f"{DRIVE}/drive/u/0/folders/17VYV_SoZZesU6mbxz2dMAIccSSlqLecY")
_BSRGAN = Release("cszn/BSRGAN", "5ce1a9c", "Apache-2.0", f"{DRIVE}/drive/folders/13kfr3qny7S2xwG9h7v95F5mkWs0OmU0D")
_REAL_ESRGAN = Release(
    "xinntao/Real-ESRGAN",
    "a4abfb2",
    "BSD-3-Clause",
    "https://github.com/xinntao/Real-ESRGAN/releases/download/v0.1.0/RealESRGAN_x4plus.pth",
)
_LDCSR = Release("MoooJianG/LDCSR", "e0e3f28", "MIT", f"{DRIVE}/drive/folders/1Bp4Brs_-A4GnRPc3Cqd5TPbyslpKvxUT")
_LIIF = Release("yinboc/liif", "4c833f8", "BSD-3-Clause", f"{DRIVE}/file/d/1wBHSrgPLOHL_QVhPAIAcDC30KSJLf67x")
_LTE = Release("jaewon-lee-b/lte", "a8815d6", "BSD-3-Clause", f"{DRIVE}/file/d/108-wQJOTR41JNn_2Q-5X4p07DvgrBNSB")
_LMF = Release("HeZongyao/LMF", "17e356e", "Apache-2.0", f"{DRIVE}/drive/folders/115AUj4Axh0VBmmozwxRIWqrNR5ZdWzd4")
_SPECTRAL = Release("caiyuanhao1998/MST-plus-plus", "18e2032", "MIT", f"{DRIVE}/drive/folders/1G1GOA0FthtmOERJIJ0pALOSgXc6XOfoY")

BY_KIND: dict[str, Release] = {
    "awan": _SPECTRAL,
    "blinddiff": Release("lifengcs/BlindDiff", "828a992", NONE_STATED, f"{DRIVE}/file/d/1lL8MgElQZW9OPglbwDrwkv558CL8dO-H"),
    "blindsrsnf": _BLINDSRSNF,
    "ciaosr": Release("caojiezhang/CiaoSR", "adac6df", "CC BY-NC 4.0", "https://github.com/caojiezhang/CiaoSR/releases"),
    "danv2": _DAN,
    "dasr": Release(
        "The-Learning-And-Vision-Atelier-LAVA/DASR",
        "51524af",
        "MIT",
        "https://github.com/The-Learning-And-Vision-Atelier-LAVA/DASR/tree/main/experiment",
    ),
    "datsr": Release("caojiezhang/DATSR", "32240b5", "CC-BY-NC", "https://github.com/caojiezhang/DATSR/releases", "without its extractors"),
    "dcls": _DCLS,
    "diffbsr": _DIFFBSR,
    "diffbsr_ddpm": replace(_DIFFBSR, weights="", note=""),
    "diffbsr_srdiff": replace(_DIFFBSR, weights="", note=""),
    "drsr": Release("XY-boy/DRSR", "ac22c0a", NONE_STATED, "https://github.com/XY-boy/DRSR/tree/main/checkpoint"),
    "ediffsr": Release("XY-boy/EDiffSR", "32269df", NONE_STATED, "https://github.com/XY-boy/EDiffSR/tree/main/experiments/sisr/ediffsr"),
    "edm_sr": _EDM,
    "esrgan": _ESRGAN,
    "hat": Release("XPixelGroup/HAT", "1638a9a", "Apache-2.0", f"{DRIVE}/drive/folders/1HpmReFfoUqUbnAOQ7rvOeNU3uf_m69w0"),
    "highresnet": Release("worldstrat/worldstrat", "39fe223", "BSD-3-Clause"),
    "hscnn_plus": _SPECTRAL,
    "idm": Release("Ree1s/IDM", "d224c0e", NONE_STATED, f"{DRIVE}/drive/folders/1VISy9fVWa9iOSr6F4oVtKVTOViWuKohQ"),
    "lcmsr": replace(_LDCSR, weights=""),
    "ldcsr": _LDCSR,
    "ldcsr_vae": _LDCSR,
    "liif": _LIIF,
    "lmf_ciaosr": _LMF,
    "lmf_liif": _LMF,
    "lmf_lte": _LMF,
    "lte": _LTE,
    "masa_sr": Release("dvlab-research/MASA-SR", "80d1bd8", NONE_STATED, f"{DRIVE}/drive/folders/1O9Y4UK1PFoFKOsYTQqcQJCA_VvBWp29N"),
    "metasr": replace(_LIIF, weights=""),
    "mst_l": _SPECTRAL,
    "mstpp": _SPECTRAL,
    "refdiff": Release("dongrunmin/RefDiff", "d44a195", NONE_STATED, f"{DRIVE}/file/d/15zSQdz7qAv4v0uS9_jnDg5M3YlDaOIzf", "SECOND, x8"),
    "resshift": Release("zsyOAOA/ResShift", "3ce1d81", "S-Lab 1.0, non-commercial"),
    "rrdb": _ESRGAN,
    "sadn": Release(
        "hanlinwu/SADN",
        "5460cbf",
        NONE_STATED,
        "https://github.com/hanlinwu/SADN/releases/download/v1.0.0/sadn_rs.zip",
        "sadn_div2k.zip beside it",
    ),
    "scdm": Release("Mr-Bamboo/SCDM", "145eff0", NONE_STATED),
    "spsr": Release("Maclory/SPSR", "881e781", NONE_STATED, f"{DRIVE}/drive/folders/1c4EbfI6X4KzCiyg1H7TA6rJY-HVgvS3q"),
    "sr3": replace(_SR3, weights=f"{DRIVE}/drive/folders/12jh0K8XoM1FqpeByXvugHHAF3oAZ8KRu", note="faces, 16 to 128"),
    "ttsr": Release("researchmm/TTSR", "550e4c9", "MIT", f"{DRIVE}/drive/folders/1CTm-r3hSbdYVCySuQ27GsrqXhhVOS-qh"),
}
"""By kind of method; a kind that is not here is ours, or has no repository of its authors."""

BY_OPTION: dict[str, Release] = {
    "bsrgan": _BSRGAN,
    "bsrgan_paper": replace(_BSRGAN, weights=""),
    "bsrnet": _BSRGAN,
    "ddpm": replace(_SR3, weights="", note=""),
    "liif_rdn": replace(_LIIF, weights=f"{DRIVE}/file/d/1xaAx6lBVVw_PJ3YVp02h3k4HuOAXcUkt"),
    "liif_swinir": replace(_LTE, weights=f"{DRIVE}/file/d/1TvXXvimq-FlVB6tOye5J3xTqPv_DRl_P"),
    "lte_plus": replace(_LTE, weights=f"{DRIVE}/file/d/1k_BWZWC4tvWA0WouViHAicdTg0pHBp-W"),
    "lte_rdn": replace(_LTE, weights=f"{DRIVE}/file/d/1fdj5cvSopIqFi74x9rofPP9O_2HfSp7K"),
    "lte_swinir": replace(_LTE, weights=f"{DRIVE}/file/d/1DnrL86pUKwRXNLOxoK_GJdrP6IZ3y9nH"),
    "metasr_swinir": replace(_LTE, weights=f"{DRIVE}/file/d/1uG8PTLRdKxO4AaFh3SNl_nFcHqeGtu4y"),
    "real_esrgan": _REAL_ESRGAN,
    "sr3": replace(_BLINDSRSNF, weights="", note="its configuration sr3_vanilla"),
    "sr3_64_512": replace(_SR3, weights=f"{DRIVE}/drive/folders/1mCiWhFqHyjt5zE4IdA41fjFwCYdqDzSF", note="faces, 64 to 512"),
    "sr3_unconditional": replace(_SR3, weights=f"{DRIVE}/drive/folders/1ldukMgLKAxE7qiKdFJlu-qubGlnW-982", note="faces from noise"),
}
"""Options of the group model whose release is another than their kind's."""


def release_of(option: str, kind: str) -> Release | None:
    """Return the release of `model=option`, or None where the authors published none, or the method is ours."""
    return BY_OPTION.get(option) or BY_KIND.get(kind)
