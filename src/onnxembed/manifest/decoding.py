"""Parsed JSON or TOML -> frozen dataclasses, closed: a key or a value that the types do not know is a problem.

Standard library only.
"""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from typing import Any, Literal, TypeVar, get_args, get_origin


def decode(kind: Any, value: Any, where: str, problems: list[str]) -> Any:
    """Turn parsed JSON or TOML into the annotated type `kind`, collecting every mismatch instead of stopping."""
    origin, args = get_origin(kind), get_args(kind)
    if dataclasses.is_dataclass(origin or kind):
        return _decode_dataclass(origin or kind, args, value, where, problems)
    if origin is Literal:
        if value not in args:
            problems.append(f"{where} is {value!r}, not one of {', '.join(map(repr, args))}")
        return value
    if origin in (typing.Union, types.UnionType):
        if value is None:
            return None
        return decode(next(a for a in args if a is not type(None)), value, where, problems)
    if origin is tuple and isinstance(value, list):
        return tuple(decode(args[0], item, f"{where}[{i}]", problems) for i, item in enumerate(value))
    if origin is dict and isinstance(value, dict):
        return {key: decode(args[1], item, f"{where}.{key}", problems) for key, item in value.items()}
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if origin is not None or type(value) is not kind:
        problems.append(f"{where} is {value!r}, not {getattr(origin or kind, '__name__', kind)}")
    return value


def _decode_dataclass(cls: Any, args: tuple[Any, ...], value: Any, where: str, problems: list[str]) -> Any:
    if not isinstance(value, dict):
        problems.append(f"{where} is {value!r}, not an object")
        return None
    hints = _hints(cls)
    prefix = where + "." if where else ""
    problems.extend(f"{prefix}{key} is unknown" for key in sorted(value.keys() - hints.keys()))
    required = {field.name for field in dataclasses.fields(cls) if _is_required(field)}
    problems.extend(f"{prefix}{key} is missing" for key in sorted(required - value.keys()))
    fields = {}
    for name in [name for name in hints if name in value]:
        # A generic dataclass has one type parameter; its argument comes with the annotation.
        kind = args[0] if args and isinstance(hints[name], TypeVar) else hints[name]
        fields[name] = decode(kind, value[name], prefix + name, problems)
    return cls(**{name: fields.get(name) for name in hints if name in fields or name in required})


@functools.cache
def _hints(cls: Any) -> dict[str, Any]:
    """The types of a dataclass's fields; kept, because a manifest has many decisions and files."""
    return typing.get_type_hints(cls)


def _is_required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
