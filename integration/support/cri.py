#!/usr/bin/env python3
"""Makes one call of the CRI, the interface between a kubelet and an engine.

cri.py SOCKET METHOD REQUEST

The request is JSON whose keys are protobuf field numbers: a string or a message ({}) is one field, a
list is a repeated field, a number is a varint. The answer has the same form, with every field as a
list; fields that are not UTF-8 text are left out. So no generated code is needed, only
python3-grpcio.
"""
import json
import sys

import grpc


def varint(number):
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def encode(message):
    out = b""
    for field, values in message.items():
        for value in values if isinstance(values, list) else [values]:
            if isinstance(value, int):
                out += varint(int(field) << 3) + varint(value)
            else:
                data = encode(value) if isinstance(value, dict) else value.encode()
                out += varint(int(field) << 3 | 2) + varint(len(data)) + data
    return out


def number(data, at):
    value = shift = 0
    while True:
        value |= (data[at] & 0x7F) << shift
        shift += 7
        at += 1
        if data[at - 1] < 0x80:
            return value, at


def decode(data):
    out, at = {}, 0
    while at < len(data):
        key, at = number(data, at)
        value, at = number(data, at)
        if key & 7 == 2:
            value, at = data[at : at + value].decode(errors="replace"), at + value
        elif key & 7:
            sys.exit(f"wire type {key & 7} is not expected")
        out.setdefault(str(key >> 3), []).append(value)
    return out


socket, method, request = sys.argv[1:]
options = [("grpc.default_authority", "localhost")]
with grpc.insecure_channel(f"unix://{socket}", options=options) as channel:
    call = channel.unary_unary(
        f"/runtime.v1.{method}", request_serializer=encode, response_deserializer=decode
    )
    try:
        print(json.dumps(call(json.loads(request), timeout=60, wait_for_ready=True)))
    except grpc.RpcError as error:
        sys.exit(f"{method}: {error.code().name}: {error.details()}")
