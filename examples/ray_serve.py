"""The server on many machines, under Ray Serve: pip install 'onnxembed[cpu,serve]' 'ray[serve]'.

MODEL=./my-model-onnx serve run examples.ray_serve:deployment
"""

from __future__ import annotations

import os

from ray import serve

from onnxembed.serve import app


@serve.deployment(num_replicas=2, ray_actor_options={"num_cpus": 2})
@serve.ingress(lambda: app(os.environ["MODEL"]))
class Embedding:
    """The application, with a copy of the model in each replica."""


deployment = Embedding.bind()  # type: ignore[attr-defined]
