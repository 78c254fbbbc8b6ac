"""Changes of JSON texts, of bytes and of texts. Nothing here knows onnxembed."""

from __future__ import annotations

import json
from copy import deepcopy
from random import Random
from typing import Any

VALUES: list[Any] = [
    *(None, True, False, [], {}, [[]], [None], {"a": {"b": 1}}, [0] * 300),
    *(0, -1, 1, 2, 7, 255, 2**31 - 1, 2**31, 2**62, 2**64, -(2**63), 10**30, 0.5, -0.0, 1e-320, 1e308),
    *(float("nan"), float("inf"), "", "a", "0", "true", "\x00", "\ud800", "\u202e", "x" * 20_000, "../../etc/passwd"),
    *("/dev/zero", "~root", "%s%n", "{query}", "mean", "cls", "left", "gelu", "relu", "causal", "graph", "int8"),
]
RAW = ["[" * 5000 + "]" * 5000, "[" * 200_000, "1" * 5000, "1e999999", "-", "NaN", "tru", '"\\u12"', "01", "[1,]", ""]
HOLE = "@@HOLE@@"
TEXTS = [
    "the cat",
    "",
    "é 東京 🙂",
    "\x00",
    "a\rb\u2028c",
    " " * 200,
    "x" * 5000,
    "\u202eabc",
    "[CLS] [MASK] </s>",
    "\n\n",
]

Path = tuple[Any, ...]


def _paths(value: Any, path: Path = ()) -> list[Path]:
    """The places of a JSON value, itself included; of long lists and objects, the first ones."""
    found = [path]
    if isinstance(value, dict | list):
        keys = list(value)[:100] if isinstance(value, dict) else range(min(len(value), 10))
        for key in keys:
            found += _paths(value[key], (*path, key))
    return found


def _near(rng: Random, old: Any) -> Any:
    """A value of the same type."""
    if isinstance(old, bool):
        return not old
    if isinstance(old, int):
        return rng.choice([old + 1, old - 1, -old, old * 2, old // 2, old * 1000])
    if isinstance(old, float):
        return rng.choice([-old, old * 2, old / 2, 0.0])
    if isinstance(old, str):
        return rng.choice([old.upper(), old[1:], old + " ", old * 2, old[::-1], old + "/.."])
    if isinstance(old, list):
        return rng.choice([old[:-1], old + old, old[::-1]])
    if isinstance(old, dict):
        return {key: old[key] for key in list(old)[::2]}
    return _other(rng)


def _other(rng: Random) -> Any:
    """A value of any type; a copy, because a later change may be inside it."""
    return deepcopy(rng.choice(VALUES))


def mutate_json(rng: Random, text: str) -> tuple[str, str, tuple[str, ...]]:
    """A changed JSON text, what was done, in words, and the keys and values that an error may name."""
    value = json.loads(text)
    done, raw = [], ""
    named: set[str] = set()
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        path = rng.choice(_paths(value)[1:] or [()])
        if not path:
            return rng.choice(RAW), "all replaced", ()
        named.update(key for key in path if isinstance(key, str) and len(key) > 1)
        holder = value
        for key in path[:-1]:
            holder = holder[key]
        action = rng.choice(["value", "near", "near", "delete", "add", "raw"])
        if action == "value":
            holder[path[-1]] = _other(rng)
        elif action == "near":
            holder[path[-1]] = _near(rng, holder[path[-1]])
        elif action == "delete":
            del holder[path[-1]]
        elif action == "add" and isinstance(holder, dict):
            holder[rng.choice(["", "type", "path", "value", "é"])] = _other(rng)
        elif action == "raw":
            raw, holder[path[-1]] = rng.choice(RAW), HOLE
        if action in ("value", "near") and isinstance(made := holder[path[-1]], str) and 0 < len(made) < 100:
            named.add(made)
        done.append(f"{action} {'.'.join(map(str, path))[:60]}")
    return json.dumps(value).replace(f'"{HOLE}"', raw), "; ".join(done), tuple(sorted(named))


def mutate_bytes(rng: Random, data: bytes) -> tuple[bytes, str]:
    """One change of a file's bytes, and what was done, in words."""
    at = rng.randrange(len(data) or 1)
    length = rng.choice([1, 2, 8, 64, 1000])
    changed = {
        "flip": data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :] if data else b"",
        "truncate": data[:at],
        "delete": data[:at] + data[at + length :],
        "insert": data[:at] + rng.randbytes(length) + data[at:],
        "zero": data[:at] + bytes(length) + data[at + length :],
        "double": data[: at + length] + data[at:],
        "empty": b"",
        "append": data + rng.randbytes(length),
    }
    action = rng.choice(list(changed))
    return changed[action], f"{action} at {at}"


def odd_texts(rng: Random) -> list[str]:
    """Some texts with what seldom stands in texts, a random string of Unicode among them."""
    letters = (chr(rng.choice([rng.randrange(32, 0xD800), rng.randrange(0xE000, 0x110000)])) for _ in range(40))
    return [*rng.choices(TEXTS, k=rng.randrange(1, 6)), "".join(letters)]
