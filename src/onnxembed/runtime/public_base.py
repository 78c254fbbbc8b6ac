"""What the public classes have in common: an open model underneath, which can be closed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Never, Self

from onnxembed.errors import UsageError
from onnxembed.runtime.open_model import OpenModel

ARGUMENTS: Mapping[str, str] = {
    "max_length": "max_length",
    "max_seq_length": "max_length",
    "truncate_dim": "dimensions",
    "dimension": "dimensions",
    "prompts": "prompts",
    "default_prompt_name": "default_prompt_name",
    "threads": "threads",
    "device": "providers",
    "provider": "providers",
    "precision": "precision",
}
"""The argument of the constructor that decides what users of other packages assign to an attribute."""

INSTEAD: Mapping[str, str] = {
    "device": "`provider` says where the model runs, and providers=... chooses it",
    "tokenizer": "tokenize(...) gives ids and tokens",
    "preprocess": "tokenize(...) gives ids and tokens",
    **dict.fromkeys(("to", "cpu", "cuda"), "providers=... chooses the device when the model is opened"),
    "half": "precision='fp16' opens the half-precision graph of a folder that has one",
    "bfloat16": "precision='bf16' computes in bf16 where the machine can",
    "dtype": "precision=... chooses the graph when the model is opened, and dtype=... of a call the type of vectors",
    "eval": "a graph is always in this mode",
    "get_max_seq_length": "it is the attribute `max_length`",
    **dict.fromkeys(("dim", "dimensions", "embedding_size"), "the length of vectors is the attribute `dimension`"),
    "truncate_sentence_embeddings": "dimensions=... of a call, or when the model is opened, cuts vectors",
    "num_labels": "`labels` has their names",
    "activation_fn": "raw_scores=True gives logits, to which any function can be applied",
    "config": "`manifest` has what was decided about the model",
    **dict.fromkeys(("rank", "predict", "score", "rerank"), "OnnxReranker opens rerankers"),
    **dict.fromkeys(("embed", "encode", "encode_query", "encode_document"), "OnnxEmbedder opens embedding models"),
    "encode_multi_process": "encode uses all threads, and device_ids=[...] several GPUs",
    "start_multi_process_pool": "encode uses all threads, and device_ids=[...] several GPUs",
    "save": "copy the model's folder",
    "save_pretrained": "copy the model's folder",
    **dict.fromkeys(("push_to_hub", "save_to_hub"), "`hf upload` publishes the model's folder"),
    "fingerprint": "`spaces` has the ids to keep beside an index, and manifest.files the hash of every file",
    "model_name": "`name` is the checkpoint's",
    **dict.fromkeys(("fit", "train"), "train the checkpoint, then export it"),
}
"""What to use instead of an attribute of another package."""


OPENING: Mapping[str, str] = {
    "model_name_or_path": "model, the first argument, is a folder or a hub id",
    **dict.fromkeys(
        ("model_name", "model_path", "specific_model_path"), "model, the first argument, is a folder or a hub id"
    ),
    **dict.fromkeys(("device", "cuda", "provider"), "providers='cpu', 'cuda' or 'auto' chooses it"),
    **dict.fromkeys(("file_name", "model_file"), "onnx_file names the graph to adopt"),
    "max_seq_length": "max_length cuts texts",
    **dict.fromkeys(("batch_size", "show_progress", "show_progress_bar"), "it is an argument of each call"),
    **dict.fromkeys(("parallel", "num_workers"), "threads, and device_ids for GPUs, share the work"),
    "lazy_load": "open the model where it is first needed",
    "use_auth_token": "token is the hub's access token",
    "force_download": "refresh=True downloads every file anew",
    "cache_folder": "cache_dir says where hub files are kept",
    "similarity_fn_name": "the model's files say it, and semantic_search(..., function=...) takes another",
    "backend": "it is always ONNX Runtime; providers chooses the device",
    "trust_remote_code": "code of a model is never run, so leave it out",
    **dict.fromkeys(("model_kwargs", "automodel_args"), "precision and providers choose the graph and where it runs"),
    **dict.fromkeys(("config_kwargs", "config_args"), "onnxembed export decides what config.json decides"),
    **dict.fromkeys(
        ("processor_kwargs", "tokenizer_kwargs", "tokenizer_args"),
        "max_length cuts texts; onnxembed export decides the rest",
    ),
    "modules": "onnxembed export makes a folder of a model that was saved",
    **dict.fromkeys(
        ("activation_fn", "default_activation_function"),
        "activation is for a graph to adopt, and raw_scores=True gives logits to apply any function to",
    ),
    "num_labels": "the model's files say it",
}
"""What to use instead of an argument with which sentence-transformers or FastEmbed opens a model."""


class OnnxModel:
    """The base of OnnxEmbedder and OnnxReranker."""

    _opened = False
    _arguments: dict[str, Any] | None
    """What the model was opened with, by name; None if it was not opened by its class."""

    def __new__(cls, *model: Any, **options: Any) -> Self:
        """Keep the arguments, for pickles and copies; UsageError for one that another package has, with what to use."""
        for name in options:
            if name in OPENING:
                raise UsageError(f"{cls.__name__} does not take {name}: {OPENING[name]}")
        made = super().__new__(cls)
        made._arguments = {**options, "model": model[0]} if model else options
        return made

    def __reduce__(self) -> tuple[Callable[[], Self], tuple[()]]:
        """Pickles and copies hold the arguments, not the graph: unpickling and copying open the model again.

        A folder is named by its whole path, a hub repository with the commit that is open here, so that the copy gives
        the same vectors elsewhere, too. A token is left out.
        """
        _ = self.model.backend
        if self._arguments is None:
            raise UsageError(
                "this model was opened with a backend of your own, which cannot be opened again from a copy: "
                "open the model anew where the copy is needed"
            )
        kept = {name: value for name, value in self._arguments.items() if name not in ("token", "refresh")}
        if self.revision is None:
            kept["model"] = str(self.folder)
        else:
            kept["revision"] = self.revision
        return partial(type(self), **kept), ()

    def __setattr__(self, name: str, value: object) -> None:
        """Set an attribute while the model is opened; afterwards AttributeError, which names the argument to use."""
        if self._opened and not name.startswith("_"):
            argument = ARGUMENTS.get(name)
            cure = f"; open it again with {argument}=..." if argument else ""
            raise AttributeError(f"{name} cannot be assigned: {type(self).__name__} stays as it was opened{cure}")
        super().__setattr__(name, value)

    if not TYPE_CHECKING:  # a type checker reports unknown attributes by itself

        def __getattr__(self, name: str) -> Never:
            """Raise AttributeError, which names what to use instead of an attribute of another package."""
            cure = f": {INSTEAD[name]}" if name in INSTEAD else ""
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}{cure}")

    @property
    def max_seq_length(self) -> int:
        """`max_length`, by the name that sentence-transformers gives it."""
        return self.max_length

    @property
    def name(self) -> str:
        """The checkpoint that the model was made from: its hub id, or its folder when it was exported."""
        return self.manifest.source.model

    @property
    def spaces(self) -> dict[str, str]:
        """The id of the vector space of each task, to keep beside an index; none for a reranker.

        Vectors of one id may be compared, whatever precision made them. It is also in `onnxembed inspect` and in every
        file of a job.
        """
        from onnxembed.loading.space import space_of  # hashes, which embedding does not need

        tasks = [task for task in self.manifest.tasks if task != "reranking"]
        return {task: space_of(self.manifest, self.folder, task, max_length=self.max_length).id for task in tasks}

    @classmethod
    def over(cls, model: OpenModel) -> Self:
        """The public class over a model that is open already."""
        made = cls.__new__(cls)
        made._arguments = None
        made._open(model)
        return made

    def _open(self, model: OpenModel) -> None:
        self._use(model)
        self._opened = True

    def _use(self, model: OpenModel) -> None:
        self.model = model
        """The open model underneath."""
        self.folder, self.manifest = model.folder, model.manifest
        self.revision = model.revision
        """The commit of a hub repository that is open; None for a folder."""
        self.threads, self.max_length = model.threads, model.max_length
        self.provider = model.provider
        """The ONNX Runtime provider in use."""

    def close(self) -> None:
        """Free the graph and its threads; the model cannot be used afterwards. Safe to repeat.

        A stream that is still being read gives the results it has, then raises UsageError.
        """
        self.model.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
