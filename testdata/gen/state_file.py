"""safetensors files whose tensors stay in a given order, and numbers in the types they are stored in.

The `safetensors` package sorts what it writes (by width, then by name), and hands out no bfloat16 in NumPy. A test of "the order of the input is kept"
needs neither to interfere: the format is small enough to be written here.
"""

import json
import struct

import numpy as np

# bfloat16 is carried as its bits.
NUMPY = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4", "U8": "u1", "BOOL": "?"}
FLOATS = ("F64", "F32", "F16", "BF16")
DIGITS = {"F64": 53, "F32": 24, "F16": 11, "BF16": 8}


class Tensor:
    """A type's name, a shape, and the bytes."""

    def __init__(self, dtype, shape, data):
        self.dtype, self.shape, self.data = dtype, tuple(shape), bytes(data)

    def __eq__(self, other):
        if not isinstance(other, Tensor):
            return NotImplemented
        return (self.dtype, self.shape, self.data) == (other.dtype, other.shape, other.data)

    def wide(self):
        """The values in f64, exactly; integers as they are."""
        raw = np.frombuffer(self.data, NUMPY[self.dtype]).reshape(self.shape)
        if self.dtype == "BF16":
            return (raw.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
        return raw.astype(np.float64) if self.dtype in FLOATS else raw.copy()


def bfloat16(values):
    """f64 to the bits of bfloat16, rounded once (by way of f32 it would be twice)."""
    values = np.asarray(values, np.float64)
    fraction, exponent = np.frexp(values)
    exponent = np.maximum(exponent, -125)  # subnormals have a fixed step
    rounded = np.ldexp(np.rint(np.ldexp(values, 8 - exponent)), exponent - 8)
    single = rounded.astype(np.float32)
    assert np.isfinite(single).all() and (single.astype(np.float64) == rounded).all()
    bits = single.view(np.uint32)
    assert not (bits & 0xFFFF).any()
    return (bits >> 16).astype("<u2")


def stored(values, dtype):
    """f64 values as a tensor of a float type, rounded once, to nearest even."""
    values = np.asarray(values, np.float64)
    data = bfloat16(values) if dtype == "BF16" else values.astype(NUMPY[dtype])
    return Tensor(dtype, values.shape, np.ascontiguousarray(data).tobytes())


def read(path):
    """(tensors by name in the order of their data, metadata or None)."""
    blob = path.read_bytes()
    (size,) = struct.unpack_from("<Q", blob)
    header = json.loads(blob[8 : 8 + size])
    metadata = header.pop("__metadata__", None)
    tensors = {}
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        begin, end = entry["data_offsets"]
        tensors[name] = Tensor(entry["dtype"], entry["shape"], blob[8 + size + begin : 8 + size + end])
    return tensors, metadata


def header_order(path):
    """The names as the header lists them."""
    blob = path.read_bytes()
    (size,) = struct.unpack_from("<Q", blob)
    return [name for name in json.loads(blob[8 : 8 + size]) if name != "__metadata__"]


def write(path, tensors, metadata):
    """Data in the order of `tensors`, without holes; the header compact, metadata first, padded with spaces to 8 bytes."""
    header, end = {"__metadata__": metadata} if metadata is not None else {}, 0
    for name, tensor in tensors.items():
        begin, end = end, end + len(tensor.data)
        header[name] = {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(t.data for t in tensors.values()))


def from_torch(tensor):
    """A torch tensor, bit for bit."""
    import torch

    names = {
        torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64",
    }  # fmt: skip
    dtype = names[tensor.dtype]
    tensor = tensor.detach().contiguous()
    raw = tensor.view(torch.int16).numpy() if tensor.dtype == torch.bfloat16 else tensor.numpy()
    return Tensor(dtype, tuple(tensor.shape), raw.tobytes())


def to_torch(tensor):
    """The values as torch f64 (floats) or int64."""
    import torch

    return torch.from_numpy(np.ascontiguousarray(tensor.wide())).reshape(tensor.shape)
