"""pyarrow, or the pip command that installs it."""

from __future__ import annotations

from onnxembed.errors import MissingExtraError

try:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq
except ImportError as error:
    raise MissingExtraError(
        f"jobs over files need the extra [bulk] ({error}): pip install 'onnxembed[bulk]'"
    ) from error

__all__ = ["pa", "pc", "pq"]
