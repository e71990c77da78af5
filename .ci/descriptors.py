"""Makes of all descriptors, which protoc wrote, those that reflection shows and those that stubs are made of.

    descriptors.py ALL SHOWN BARE

SHOWN has the comments of our own protos. BARE is without `buf.validate`: the field rules stay in it as options of a
kind that need not be known, whose bytes the server's validator reads. So the stubs import nothing but protobuf, and a
package or folder `buf` of the programs that use them is no trouble.
"""

import sys
from pathlib import Path

from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto, FileDescriptorSet

RULES = "buf/validate/validate.proto"


def main(every: Path, shown: Path, bare: Path) -> None:
    """Write both sets."""
    files = FileDescriptorSet.FromString(every.read_bytes()).file
    for file in files:
        for message in file.message_type:
            _forget_json_names(message)
    bare.write_bytes(_bytes([_without_rules(file) for file in files if file.name != RULES]))
    for file in files:
        if not file.name.startswith("flowkeep/"):
            file.ClearField("source_code_info")
    shown.write_bytes(_bytes(files))


def _without_rules(file: FileDescriptorProto) -> FileDescriptorProto:
    bare = FileDescriptorProto()
    bare.CopyFrom(file)
    bare.ClearField("dependency")
    bare.dependency.extend(name for name in file.dependency if name != RULES)
    return bare


def _forget_json_names(message: DescriptorProto) -> None:
    """Remove what protoc adds to a set and every runtime finds by itself: a third of the generated code."""
    for field in message.field:
        field.ClearField("json_name")
    for nested in message.nested_type:
        _forget_json_names(nested)


def _bytes(files: list[FileDescriptorProto]) -> bytes:
    return FileDescriptorSet(file=files).SerializeToString(deterministic=True)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
