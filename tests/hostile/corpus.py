"""Malicious and malformed files, made on the spot: pickles, archives, tensors, HDF5, rasters, images, MATLAB, NumPy, JSON and YAML.

A maker gets the path to write and a path `trap` that the file tries to create, or a `secret` that it tries to read.
"""

from __future__ import annotations

import io
import json
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import rasterio
import scipy.io
import torch
from PIL import Image
from rasterio.transform import from_origin

from tests.unit.test_hostile_files import Reduces, hostile_files

SECRET = b"a line that no reader may show\n" * 4096
Maker = Callable[[Path, Path, Path], None]


def _bytes(content: bytes) -> Maker:
    return lambda path, trap, secret: (path.write_bytes(content), None)[1]


# Pickles and what carries them


def _pickle(kind: str) -> Maker:
    return lambda path, trap, secret: (path.write_bytes(hostile_files(trap)[kind]), None)[1]


def _zipped_pickle(kind: str) -> Maker:
    """A torch file whose data.pkl is the hostile pickle."""

    def make(path: Path, trap: Path, secret: Path) -> None:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", hostile_files(trap)[kind])
            archive.writestr("archive/version", "3\n")

    return make


def _within(kind: str) -> Maker:
    """A pickled dictionary, as EDM and Lightning write them, with the hostile pickle as torch data inside."""

    def make(path: Path, trap: Path, secret: Path) -> None:
        inner = Reduces(torch.storage._load_from_bytes, (hostile_files(trap)[kind],))
        path.write_bytes(pickle.dumps({"ema": {"state_dict": inner}, "pytorch-lightning_version": "2.0"}))

    return make


def _zip(write: Callable[[zipfile.ZipFile], None]) -> Maker:
    def make(path: Path, trap: Path, secret: Path) -> None:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
            write(archive)

    return make


def _zip_bomb(archive: zipfile.ZipFile) -> None:
    archive.writestr("archive/data.pkl", bytes(64 << 20), zipfile.ZIP_DEFLATED)


def _zip_of_many(archive: zipfile.ZipFile) -> None:
    for number in range(20_000):
        archive.writestr(f"archive/data/{number}", b"")
    archive.writestr("archive/data.pkl", b"\x80\x02N.")


def _zip_that_climbs(archive: zipfile.ZipFile) -> None:
    archive.writestr("../../data.pkl", b"\x80\x02}X\x01\x00\x00\x00aNs.")


def _zip_with_a_lying_size(path: Path, trap: Path, secret: Path) -> None:
    torch.save({"w": torch.ones(8)}, path)
    content = bytearray(path.read_bytes())
    place = content.rfind(b"PK\x01\x02")
    content[place + 24 : place + 28] = struct.pack("<I", 0x7FFFFFFF)
    path.write_bytes(bytes(content))


def _zip_with_names_of_no_text(path: Path, trap: Path, secret: Path) -> None:
    _zip(lambda archive: archive.writestr("ä/data.pkl", b"\x80\x02N."))(path, trap, secret)
    path.write_bytes(path.read_bytes().replace("ä".encode(), b"\xff\xff"))


def _zip_that_begins_before_the_file(path: Path, trap: Path, secret: Path) -> None:
    _zip(lambda archive: archive.writestr("archive/data.pkl", b"\x80\x02N."))(path, trap, secret)
    content = bytearray(path.read_bytes())
    place = content.rfind(b"PK\x05\x06") + 16
    (start,) = struct.unpack_from("<I", content, place)
    struct.pack_into("<I", content, place, start + 100)
    path.write_bytes(bytes(content))


def _storage_of_terabytes(path: Path, trap: Path, secret: Path) -> None:
    huge = Reduces(torch._utils._rebuild_tensor_v2, (torch.ones(1).storage(), 0, (2**40,), (0,), False, {}))
    torch.save({"w": huge}, path)


def _safetensors(header: bytes, length: int | None = None, data: bytes = b"") -> Maker:
    return _bytes(struct.pack("<Q", len(header) if length is None else length) + header + data)


def _tensor(shape: list[int], start: int, end: int, dtype: str = "F32") -> bytes:
    return json.dumps({"w": {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}}).encode()


# HDF5


def _hdf5(write: Callable[[h5py.File, Path], None]) -> Maker:
    def make(path: Path, trap: Path, secret: Path) -> None:
        with h5py.File(path, "w") as file:
            write(file, secret)

    return make


def _external_link(file: h5py.File, secret: Path) -> None:
    file["cube"] = h5py.ExternalLink(str(secret.with_suffix(".h5")), "/cube")


def _external_storage(file: h5py.File, secret: Path) -> None:
    file.create_dataset("cube", (3, 16, 16), np.uint8, external=[(str(secret), 0, 768)])


def _virtual(file: h5py.File, secret: Path) -> None:
    layout = h5py.VirtualLayout((3, 16, 16), np.uint8)
    layout[:] = h5py.VirtualSource(str(secret.with_suffix(".h5")), "cube", (3, 16, 16))
    file.create_virtual_dataset("cube", layout)


def _chunk_of_gigabytes(file: h5py.File, secret: Path) -> None:
    file.create_dataset("cube", (1, 2**15, 2**15), np.uint8, chunks=(1, 2**15, 2**15), compression="gzip")


def _packed_like(change: Callable[[h5py.File, Path], None]) -> Maker:
    def write(file: h5py.File, secret: Path) -> None:
        file.attrs["format"] = "rsdiff-packed-1"
        change(file, secret)

    return _hdf5(write)


def _packed_with_manifest(text: bytes) -> Maker:
    return _packed_like(lambda file, secret: (file.create_dataset("manifest", data=np.frombuffer(text, np.uint8)), None)[1])


def _packed_manifest(**changes: Any) -> bytes:
    values: dict[str, Any] = {
        "names": ["a"],
        "labels": [[]],
        "georeferences": [None],
        "splits": {"train": [0], "test": [0]},
        "roles": {"hr": {"dtype": "|u1", "shapes": [[3, 16, 16]]}},
        "wavelengths": [],
        "normaliser": {"low": [0.0], "high": [255.0]},
        "lr_normaliser": {"low": [0.0], "high": [255.0]},
        "scale": 1.0,
        "origin": "",
    }
    return json.dumps({**values, **changes}).encode()


# Rasters


def write_tiff(path: Path, **options: Any) -> None:
    profile = {"driver": "GTiff", "width": 16, "height": 16, "count": 3, "dtype": "uint8", "transform": from_origin(0, 0, 1, 1)}
    with rasterio.open(path, "w", **{**profile, **options}) as file:
        if "sparse_ok" not in options:
            file.write(np.full((file.count, file.height, file.width), 7, file.dtypes[0]))


def _sparse_tiff(side: int, block: int) -> Maker:
    options = {"width": side, "height": side, "sparse_ok": True, "compress": "deflate", "BIGTIFF": "YES"}
    tiles = {"tiled": True, "blockxsize": block, "blockysize": block} if block else {"blockysize": side}
    return lambda path, trap, secret: write_tiff(path, **options, **tiles)


def _changed_tiff(change: Callable[[bytearray], None]) -> Maker:
    def make(path: Path, trap: Path, secret: Path) -> None:
        write_tiff(path)
        content = bytearray(path.read_bytes())
        change(content)
        path.write_bytes(bytes(content))

    return make


def _directory(content: bytearray) -> tuple[int, int]:
    (place,) = struct.unpack_from("<I", content, 4)
    (count,) = struct.unpack_from("<H", content, place)
    return place, count


def _cyclic(content: bytearray) -> None:
    place, count = _directory(content)
    struct.pack_into("<I", content, place + 2 + 12 * count, place)


def _set_tag(tag: int, value: int) -> Callable[[bytearray], None]:
    def change(content: bytearray) -> None:
        place, count = _directory(content)
        for entry in range(place + 2, place + 2 + 12 * count, 12):
            if struct.unpack_from("<H", content, entry)[0] == tag:
                struct.pack_into("<HI", content, entry + 2, 4, 1)
                struct.pack_into("<I", content, entry + 8, value)

    return change


def _vrt(source: str) -> bytes:
    return (
        '<VRTDataset rasterXSize="16" rasterYSize="16"><VRTRasterBand dataType="Byte" band="1"><SimpleSource>'
        f'<SourceFilename relativeToVRT="0">{source}</SourceFilename><SourceBand>1</SourceBand></SimpleSource></VRTRasterBand></VRTDataset>'
    ).encode()


def _raw_vrt(secret: Path) -> bytes:
    return (
        '<VRTDataset rasterXSize="16" rasterYSize="16"><VRTRasterBand dataType="Byte" band="1" subClass="VRTRawRasterBand">'
        f'<SourceFilename relativetoVRT="0">{secret}</SourceFilename><ImageOffset>0</ImageOffset><PixelOffset>1</PixelOffset>'
        "<LineOffset>16</LineOffset></VRTRasterBand></VRTDataset>"
    ).encode()


PYTHON_VRT = (
    b'<VRTDataset rasterXSize="16" rasterYSize="16"><VRTRasterBand dataType="Byte" band="1" subClass="VRTDerivedRasterBand">'
    b"<PixelFunctionType>f</PixelFunctionType><PixelFunctionLanguage>Python</PixelFunctionLanguage><PixelFunctionCode><![CDATA["
    b"def f(*a, **k): open('TRAP', 'w')]]></PixelFunctionCode></VRTRasterBand></VRTDataset>"
)
WMS = b'<GDAL_WMS><Service name="TMS"><ServerUrl>http://127.0.0.1:9/</ServerUrl></Service></GDAL_WMS>'


def _envi_that_lies(path: Path, trap: Path, secret: Path) -> None:
    path.write_bytes(bytes(64))
    header = "ENVI\nsamples = 200000\nlines = 200000\nbands = 100\ndata type = 5\ninterleave = bsq\nbyte order = 0\nheader offset = 0\n"
    path.with_suffix(".hdr").write_text(header)


# Images


def _png(width: int, height: int, data: bytes, depth: int = 8, colour: int = 2) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def _jpeg_that_lies(path: Path, trap: Path, secret: Path) -> None:
    stream = io.BytesIO()
    Image.new("RGB", (16, 16)).save(stream, "jpeg")
    content = bytearray(stream.getvalue())
    struct.pack_into(">HH", content, content.find(b"\xff\xc0") + 5, 65535, 65535)
    path.write_bytes(bytes(content))


def _bmp(width: int, height: int) -> bytes:
    return b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)


# Arrays


def _npy(header: str) -> bytes:
    text = header.encode().ljust(118) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


def _npy_of_objects(path: Path, trap: Path, secret: Path) -> None:
    with path.open("wb") as file:
        np.save(file, np.array([[[Reduces(open, (str(trap), "w"))]]], dtype=object), allow_pickle=True)


def _matlab_bomb(path: Path, trap: Path, secret: Path) -> None:
    scipy.io.savemat(path, {"cube": np.zeros((1024, 1024, 96), np.uint8)}, do_compression=True)


def _matlab_that_lies(path: Path, trap: Path, secret: Path) -> None:
    scipy.io.savemat(path, {"cube": np.zeros((16, 16, 3), np.uint8)})
    content = path.read_bytes()
    path.write_bytes(content.replace(struct.pack("<3i", 16, 16, 3), struct.pack("<3i", 60000, 60000, 3)))


PICKLES = sorted(hostile_files(Path("trap")))
WEIGHTS: dict[str, Maker] = {
    **{f"pickle, {kind}.pt": _pickle(kind) for kind in PICKLES},
    **{f"torch zip, {kind}.pth": _zipped_pickle(kind) for kind in PICKLES},
    **{f"torch data in a checkpoint, {kind}.ckpt": _within(kind) for kind in PICKLES},
    "zip bomb.pt": _zip(_zip_bomb),
    "zip of twenty thousand parts.pt": _zip(_zip_of_many),
    "zip with a name that climbs.pt": _zip(_zip_that_climbs),
    "zip with a lying size.pt": _zip_with_a_lying_size,
    "zip with names of no text.pt": _zip_with_names_of_no_text,
    "zip that begins before the file.pt": _zip_that_begins_before_the_file,
    "tensor of terabytes.pt": _storage_of_terabytes,
    "zip cut short.pt": _bytes(b"PK\x03\x04" + bytes(40)),
    "header of exabytes.safetensors": _safetensors(b"{}", 2**62),
    "header of no JSON.safetensors": _safetensors(b"{[}"),
    "header a million deep.safetensors": _safetensors(b"[" * 1_000_000),
    "tensor beyond the end.safetensors": _safetensors(_tensor([4], 0, 16), data=bytes(8)),
    "negative place.safetensors": _safetensors(_tensor([4], -16, 0), data=bytes(16)),
    "overflowing shape.safetensors": _safetensors(_tensor([2**33, 2**33], 0, 16), data=bytes(16)),
    "unknown type.safetensors": _safetensors(_tensor([4], 0, 16, "Q99"), data=bytes(16)),
    "empty.safetensors": _bytes(b""),
}
PACKED: dict[str, Maker] = {
    "no HDF5.h5": _bytes(b"\x89HDF\r\n\x1a\n" + bytes(200)),
    "no manifest.h5": _packed_like(lambda file, secret: None),
    "manifest of floats.h5": _packed_like(lambda file, secret: (file.create_dataset("manifest", data=np.zeros(9)), None)[1]),
    "manifest a million deep.h5": _packed_with_manifest(b"[" * 1_000_000),
    "manifest of a list.h5": _packed_with_manifest(b"[1]"),
    "name that climbs.h5": _packed_with_manifest(_packed_manifest(names=["../../../etc/passwd"])),
    "negative shape.h5": _packed_with_manifest(_packed_manifest(roles={"hr": {"dtype": "|u1", "shapes": [[3, -16, 16]]}})),
    "shape of exabytes.h5": _packed_with_manifest(_packed_manifest(roles={"hr": {"dtype": "|u1", "shapes": [[2**20, 2**20, 2**20]]}})),
    "objects for pixels.h5": _packed_with_manifest(_packed_manifest(roles={"hr": {"dtype": "|O", "shapes": [[3, 16, 16]]}})),
    "position beyond.h5": _packed_with_manifest(_packed_manifest(splits={"train": [7], "test": [-1]})),
    "manifest elsewhere.h5": _packed_like(
        lambda file, secret: (file.create_dataset("manifest", (100,), np.uint8, external=[(str(secret), 0, 100)]), None)[1]
    ),
    "manifest linked.h5": _packed_like(
        lambda file, secret: file.__setitem__("manifest", h5py.ExternalLink(str(secret.with_suffix(".h5")), "/cube"))
    ),
    "manifest of a terabyte.h5": _packed_like(
        lambda file, secret: (file.create_dataset("manifest", (2**40,), np.uint8, chunks=(2**20,), compression="gzip"), None)[1]
    ),
}
IMAGES: dict[str, Maker] = {
    "external link.h5": _hdf5(_external_link),
    "external storage.h5": _hdf5(_external_storage),
    "virtual data set.h5": _hdf5(_virtual),
    "soft link to itself.h5": _hdf5(lambda file, secret: file.__setitem__("cube", h5py.SoftLink("/cube"))),
    "terabytes of chunks.h5": _hdf5(
        lambda file, secret: (file.create_dataset("cube", (3, 2**20, 2**20), np.float64, chunks=(1, 64, 64), compression="gzip"), None)[1]
    ),
    "chunk of gigabytes.h5": _hdf5(_chunk_of_gigabytes),
    "strings.h5": _hdf5(lambda file, secret: (file.create_dataset("cube", (3, 4, 4), h5py.string_dtype()), None)[1]),
    "bomb in tiles.tif": _sparse_tiff(200_000, 512),
    "bomb in one strip.tif": _sparse_tiff(20_000, 0),
    "bomb in one tile.tif": _sparse_tiff(16_384, 16_384),
    "cyclic directories.tif": _changed_tiff(_cyclic),
    "width of billions.tif": _changed_tiff(_set_tag(256, 2**31 - 1)),
    "height of billions.tif": _changed_tiff(_set_tag(257, 2**31 - 1)),
    "no samples.tif": _changed_tiff(_set_tag(277, 0)),
    "sixty thousand samples.tif": _changed_tiff(_set_tag(277, 60_000)),
    "strips beyond the end.tif": _changed_tiff(_set_tag(273, 2**31)),
    "unknown compression.tif": _changed_tiff(_set_tag(259, 31337)),
    "directory beyond the end.tif": _changed_tiff(lambda content: struct.pack_into("<I", content, 4, 2**31)),
    "directory cut short.tif": _changed_tiff(lambda content: content.__delitem__(slice(_directory(content)[0] + 9, None))),
    "big TIFF of a billion tags.tif": _bytes(b"II+\0\x08\0\0\0" + struct.pack("<QQ", 16, 2**40) + bytes(64)),
    "mosaic of a secret.tif": lambda path, trap, secret: (path.write_bytes(_raw_vrt(secret)), None)[1],
    "mosaic of a secret.vrt.png": lambda path, trap, secret: (path.write_bytes(_vrt(str(secret))), None)[1],
    "mosaic from a server.vrt": _bytes(_vrt("/vsicurl/http://127.0.0.1:9/a.tif")),
    "mosaic that runs Python.vrt": lambda path, trap, secret: (path.write_bytes(PYTHON_VRT.replace(b"TRAP", str(trap).encode())), None)[1],
    "map server.tif": _bytes(WMS),
    "header that lies.img": _envi_that_lies,
    "billions of pixels.png": _bytes(_png(2**31 - 1, 2**31 - 1, b"")),
    "gigabyte of nothing.png": _bytes(_png(18_000, 18_000, zlib.compress(b"\0"))),
    "below the limit.png": _bytes(_png(13_000, 13_000, zlib.compress(b"\0"))),
    "more pixels than said.png": _bytes(_png(8, 8, zlib.compress(bytes(64 << 20)))),
    "sixteen bits of nothing.png": _bytes(_png(30_000, 30_000, zlib.compress(b"\0"), depth=16)),
    "no size.png": _bytes(_png(0, 0, b"")),
    "size that lies.jpg": _jpeg_that_lies,
    "billions of pixels.bmp": _bytes(_bmp(2**31 - 1, 2**31 - 1)),
    "negative height.bmp": _bytes(_bmp(16, -(2**31))),
    "only a header.webp": _bytes(b"RIFF\xff\xff\xff\x7fWEBPVP8 " + bytes(40)),
    "only a header.jp2": _bytes(b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(64)),
    "objects.npy": _npy_of_objects,
    "terabytes.npy": _bytes(_npy("{'descr': '<f8', 'fortran_order': False, 'shape': (3, 1048576, 1048576), }")),
    "negative.npy": _bytes(_npy("{'descr': '<f8', 'fortran_order': False, 'shape': (3, -1, 16), }")),
    "code for a header.npy": _bytes(_npy("__import__('os').system('true')")),
    "zeros in a bomb.mat": _matlab_bomb,
    "size that lies.mat": _matlab_that_lies,
    "only a header.mat": _bytes(b"MATLAB 5.0 MAT-file".ljust(124) + b"\0\1IM" + bytes(20)),
    "empty.tif": _bytes(b""),
    "text.tif": _bytes(b"hello\n" * 100),
}
JSONS: dict[str, bytes] = {
    "a million deep": b"[" * 1_000_000,
    "a list": b"[1, 2]",
    "no text": b"\xff\xfe\x00",
    "a number of a million digits": b'{"format": ' + b"9" * 1_000_000 + b"}",
    "nothing of use": b"{}",
    "empty": b"",
}
YAMLS: dict[str, str] = {
    "an object": "x: !!python/object/apply:os.system ['touch TRAP']\n",
    "a module": "x: !!python/module:os\n",
    "a name": "x: !!python/name:os.system\n",
    "a resolver that evaluates": "x: ${eval:__import__('os').system('touch TRAP')}\n",
}
