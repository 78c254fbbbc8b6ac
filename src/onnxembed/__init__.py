"""Embedding models as ONNX folders that give the model's own vectors, fast, without torch."""

__version__ = "0.1.0"

TYPE_CHECKING = False  # what `typing` calls so; importing that takes longer than this module
if TYPE_CHECKING:
    from onnxembed import commands as commands
    from onnxembed import errors as errors
    from onnxembed import manifest as manifest
    from onnxembed.public import *  # noqa: F403
    from onnxembed.public import __all__ as __all__
else:
    MODULES = ("commands", "errors", "manifest")

    def __getattr__(name: str) -> object:
        """A public name, whose modules are imported when it is first used: the command begins without them."""
        from importlib import import_module

        if name in MODULES:
            return import_module(f"onnxembed.{name}")
        if name != "__all__" and name.startswith("_"):
            raise AttributeError(f"module 'onnxembed' has no attribute {name!r}")
        public = import_module("onnxembed.public")
        if name == "__all__":
            return [*public.__all__, "__version__"]
        if name not in public.__all__:
            raise AttributeError(f"module 'onnxembed' has no attribute {name!r}")
        return getattr(public, name)

    def __dir__() -> list[str]:
        """The public names, for completion."""
        return sorted([*__getattr__("__all__"), *MODULES])
