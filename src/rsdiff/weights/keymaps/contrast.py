"""Published names of DASR's degradation encoder in its MoCo wrapper (BlindSRSNF, DiffBSR, DRSR)."""

from __future__ import annotations

from rsdiff.weights.keymaps.renaming import Rule, renamed

ENCODER: tuple[Rule, ...] = ((r"^trunk\.", "E."), (r"^projection\.", "mlp."))


def encoder_name(key: str) -> str:
    """Return the published name of a parameter of `DegradationEncoder`."""
    return renamed(key, ENCODER)


def contrast_name(key: str) -> str:
    """Return the published name of an entry of `MomentumContrast` around that encoder."""
    for ours, published in (("query_encoder.", "encoder_q."), ("key_encoder.", "encoder_k.")):
        if key.startswith(ours):
            return published + encoder_name(key.removeprefix(ours))
    return {"queue_position": "queue_ptr"}.get(key, key)
