"""The golden field table: every message, field and enum value of the installed `onnx` package."""

import onnx
from google.protobuf.descriptor import FieldDescriptor

TYPES = {number: name[len("TYPE_") :].lower() for name, number in vars(FieldDescriptor).items() if name.startswith("TYPE_")}


def label(field):
    return "repeated" if field.is_repeated else "required" if field.is_required else "optional"


def type_name(field):
    if field.message_type:
        return field.message_type.full_name.removeprefix("onnx.")
    if field.enum_type:
        return field.enum_type.full_name.removeprefix("onnx.")
    return TYPES[field.type]


def lines_of(message, prefix=""):
    """One line a field or enum value, nested messages included."""
    name = prefix + message.name
    for field in message.fields:
        packed = " packed" if field.GetOptions().packed else ""
        yield f"{name}.{field.name} {field.number} {label(field)} {type_name(field)}{packed}"
    for enum in message.enum_types:
        yield from enum_lines(enum, f"{name}.")
    for nested in message.nested_types:
        yield from lines_of(nested, f"{name}.")


def enum_lines(enum, prefix=""):
    for value in enum.values:
        yield f"{prefix}{enum.name}.{value.name} {value.number} enum"


def table():
    file = onnx.ModelProto.DESCRIPTOR.file
    lines = [line for message in file.message_types_by_name.values() for line in lines_of(message)]
    lines += [line for enum in file.enum_types_by_name.values() for line in enum_lines(enum)]
    return sorted(lines)


def write(path):
    path.parent.mkdir(exist_ok=True)
    head = [f"# onnx {onnx.__version__} IR_VERSION {onnx.IR_VERSION}"]
    path.write_text("\n".join(head + table()) + "\n")
