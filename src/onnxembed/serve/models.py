"""All served models, by the names that requests call them by."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from onnxembed.errors import UsageError
from onnxembed.manifest import Task
from onnxembed.serve.errors import Refusal
from onnxembed.serve.model import ServedModel


class Models:
    """Finds the model of a request.

    Args:
        models: the served models, in the operator's order.
        default: the name of the model for requests that name none.

    Raises UsageError for two models of one name, and for a default that is not served.
    """

    def __init__(self, models: Sequence[ServedModel], default: str | None = None) -> None:
        self._models = models
        twice = [name for name, times in Counter(model.name for model in models).items() if times > 1]
        if twice:
            raise UsageError(f"two models are called {twice[0]!r}; name one of them: NAME=MODEL")
        # A name that several models could mean, such as that of their common checkpoint, means none of them.
        meant = Counter(name for model in models for name in model.names)
        self._by_name = {name: model for model in models for name in model.names if meant[name] == 1}
        self._by_name |= {model.name: model for model in models}
        if default is not None and default not in self._by_name:
            raise UsageError(f"the default is {default!r}, which is not served; served are: {self.listed}")
        self._default = None if default is None else self._by_name[default]

    def __iter__(self) -> Iterator[ServedModel]:
        return iter(self._models)

    @property
    def listed(self) -> str:
        """The names of all models."""
        return ", ".join(model.name for model in self._models)

    def find(self, name: str | None, *tasks: Task) -> ServedModel:
        """The model of this name, or without one the default, or else the first that does one of the tasks.

        Raises Refusal: 404 for a name that is not served, 424 if the model does none of the tasks.
        """
        if name is not None:
            if name not in self._by_name:
                message = f"the model {name!r} is not served here; served are: {self.listed}"
                raise Refusal("model_not_found", message, param="$.model")
            return self._by_name[name]
        if not tasks:
            return self._default or self._models[0]
        able = [model for model in self._models if set(tasks) & set(model.manifest.tasks)]
        if self._default is not None and self._default in able:
            return self._default
        if not able:
            raise Refusal("model_type", f"no served model is made for {' or '.join(tasks)}")
        return able[0]
