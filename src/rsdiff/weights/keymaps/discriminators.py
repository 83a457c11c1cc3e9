"""Published names of the discriminators of BasicSR and KAIR."""

from __future__ import annotations

from torch import nn

from rsdiff.networks.patch_discriminator import PatchDiscriminator
from rsdiff.networks.spectral_norm import SpectralConv2d
from rsdiff.networks.unet_discriminator import UNetDiscriminator
from rsdiff.networks.vgg_discriminator import VGGDiscriminator
from rsdiff.weights.keymaps.renaming import Name

Discriminator = UNetDiscriminator | VGGDiscriminator | PatchDiscriminator


def discriminator_name(network: Discriminator) -> Name:
    """Return the naming of a discriminator's tensors in the files of BasicSR or KAIR: of its modules, then of spectral norms."""
    modules = _modules_of(network)
    spectral = {path for path, module in network.named_modules() if isinstance(module, SpectralConv2d)}

    def name(key: str) -> str:
        path, _, tensor = key.rpartition(".")
        published = "weight_orig" if tensor == "weight" and path in spectral else tensor
        return f"{modules.get(path, path)}.{published}"

    return name


def _modules_of(network: Discriminator) -> dict[str, str]:
    """Return our module path -> published one, where they differ."""
    if isinstance(network, PatchDiscriminator):
        return _patch_modules(network)
    if isinstance(network, VGGDiscriminator):
        return _basicsr_vgg_modules(network) if network.variant == "basicsr" else _sequential_vgg_modules(network)
    return {}


def _basicsr_vgg_modules(network: VGGDiscriminator) -> dict[str, str]:
    names = {f"convs.{k}": f"conv{k // 2}_{k % 2}" for k in range(len(network.convs))}
    names |= {f"norms.{k - 1}": f"bn{k // 2}_{k % 2}" for k in range(1, len(network.convs))}
    return names | {"hidden": "linear1", "answer": "linear2"}


def _sequential_vgg_modules(network: VGGDiscriminator) -> dict[str, str]:
    # One Sequential: a convolution (and ESRGAN's activation), then convolution, norm and activation in turn.
    first = 1 if network.variant == "kair" else 2
    names = {f"convs.{k}": f"features.{first + 3 * (k - 1) if k else 0}" for k in range(len(network.convs))}
    names |= {f"norms.{k - 1}": f"features.{first + 3 * (k - 1) + 1}" for k in range(1, len(network.convs))}
    return names | {"hidden": "classifier.0", "answer": "classifier.2"}


def _patch_modules(network: PatchDiscriminator) -> dict[str, str]:
    names, child = {}, -1
    for number, module in enumerate(network.main):
        child += isinstance(module, nn.Conv2d)
        names[f"main.{number}"] = f"model.child{child}.{0 if isinstance(module, nn.Conv2d) else 1}"
    return names
