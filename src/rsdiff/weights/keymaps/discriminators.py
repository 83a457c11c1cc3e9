"""Published names of the discriminators of BasicSR and KAIR."""

from __future__ import annotations

import re

from torch import nn

from rsdiff.networks.discriminators import PatchDiscriminator, SpectralConv2d, UNetDiscriminator, VGGDiscriminator
from rsdiff.weights.keymaps.renaming import Name, Rule, renamed

Discriminator = UNetDiscriminator | VGGDiscriminator | PatchDiscriminator


def discriminator_name(network: Discriminator) -> Name:
    """Return the naming of a discriminator's tensors in the files of BasicSR or KAIR: of spectral norms, then of its modules."""
    spectral = [re.escape(path) for path, module in network.named_modules() if isinstance(module, SpectralConv2d)]
    rules: tuple[Rule, ...] = (*((rf"^{path}\.weight$", r"\g<0>_orig") for path in spectral), *_rules_of(network))
    return lambda key: renamed(key, rules)


def _rules_of(network: Discriminator) -> tuple[Rule, ...]:
    if isinstance(network, PatchDiscriminator):
        return _patch_rules(network)
    if isinstance(network, VGGDiscriminator):
        return BASICSR_VGG if not (network.has_biases or network.is_kair) else _sequential_vgg_rules(network)
    return ()


BASICSR_VGG: tuple[Rule, ...] = (
    (r"^convs\.(\d+)\.", lambda match: f"conv{int(match[1]) // 2}_{int(match[1]) % 2}."),
    (r"^norms\.(\d+)\.", lambda match: f"bn{(int(match[1]) + 1) // 2}_{(int(match[1]) + 1) % 2}."),
    (r"^hidden\.", "linear1."),
    (r"^answer\.", "linear2."),
)


def _sequential_vgg_rules(network: VGGDiscriminator) -> tuple[Rule, ...]:
    # One Sequential: a convolution (and ESRGAN's activation), then convolution, norm and activation in turn.
    first = 1 if network.is_kair else 2
    return (
        (r"^convs\.0\.", "features.0."),
        (r"^convs\.(\d+)\.", lambda match: f"features.{first + 3 * (int(match[1]) - 1)}."),
        (r"^norms\.(\d+)\.", lambda match: f"features.{first + 3 * int(match[1]) + 1}."),
        (r"^hidden\.", "classifier.0."),
        (r"^answer\.", "classifier.2."),
    )


def _patch_rules(network: PatchDiscriminator) -> tuple[Rule, ...]:
    rules: list[Rule] = []
    child = -1
    for number, module in enumerate(network.main):
        child += isinstance(module, nn.Conv2d)
        rules.append((rf"^main\.{number}\.", f"model.child{child}.{0 if isinstance(module, nn.Conv2d) else 1}."))
    return tuple(rules)
