"""Async twins: the same work on another thread, so that an event loop goes on; cancelling one drops its later runs."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator
from contextlib import suppress
from contextvars import Context, copy_context
from functools import partial, wraps
from threading import Event
from typing import Any, Concatenate, ParamSpec, TypeVar

from onnxembed.runtime.streaming import STOP

Model = TypeVar("Model")
Result = TypeVar("Result")
Arguments = ParamSpec("Arguments")


def twin(
    method: Callable[Concatenate[Model, Arguments], Result],
) -> Callable[Concatenate[Model, Arguments], Coroutine[Any, Any, Result]]:
    """The async form of a method: the same arguments, result and errors."""

    @wraps(method)
    async def asynchronous(model: Model, /, *arguments: Arguments.args, **options: Arguments.kwargs) -> Result:
        context, stop = _stoppable()
        return await _elsewhere(context, stop, partial(method, model, *arguments, **options))

    asynchronous.__doc__ = f"Await `{method.__name__}`: computed on another thread; cancelling drops the later runs."
    return asynchronous


def stream_twin(
    method: Callable[Concatenate[Model, Arguments], Generator[Result, None, None]],
) -> Callable[Concatenate[Model, Arguments], AsyncGenerator[Result, None]]:
    """The async form of a method that streams."""

    @wraps(method)
    async def asynchronous(
        model: Model, /, *arguments: Arguments.args, **options: Arguments.kwargs
    ) -> AsyncGenerator[Result, None]:
        context, stop = _stoppable()
        stream = context.run(partial(method, model, *arguments, **options))
        end: Any = object()
        try:
            while (item := await _elsewhere(context, stop, partial(next, stream, end))) is not end:
                yield item
        finally:
            stop.set()
            with suppress(ValueError):  # a cancelled call still runs on its thread, and ends by itself
                stream.close()

    asynchronous.__doc__ = f"Stream as `{method.__name__}` does, for `async for`; computed on another thread."
    return asynchronous


def _stoppable() -> tuple[Context, Event]:
    """A context for a call, and the event that ends the call's work."""
    context, stop = copy_context(), Event()
    context.run(STOP.set, stop)
    return context, stop


def _elsewhere(context: Context, stop: Event, work: Callable[[], Result]) -> Awaitable[Result]:
    """Do the work in the context on another thread."""
    import asyncio  # who awaits has it; `import onnxembed` need not wait for it

    async def awaited() -> Result:
        try:
            return await asyncio.get_running_loop().run_in_executor(None, partial(context.run, work))
        except asyncio.CancelledError:
            stop.set()
            raise

    return awaited()
