"""Published names of DASR's degradation encoder in its MoCo wrapper (BlindSRSNF, DiffBSR, DRSR)."""

from __future__ import annotations

from rsdiff.weights.keymaps.renaming import Rule, renamed

ENCODER: tuple[Rule, ...] = ((r"\btrunk\.", "E."), (r"\bprojection\.", "mlp."))
WRAPPER: tuple[Rule, ...] = ((r"^query_encoder\.", "encoder_q."), (r"^key_encoder\.", "encoder_k."), (r"^queue_position$", "queue_ptr"))


def encoder_name(key: str) -> str:
    """Return the published name of a parameter of `DegradationEncoder`."""
    return renamed(key, ENCODER)


def contrast_name(key: str) -> str:
    """Return the published name of an entry of `MomentumContrast` around that encoder."""
    return renamed(key, (*WRAPPER, *ENCODER))
