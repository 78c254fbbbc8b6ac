"""What the command line does, as functions: `from onnxembed import commands`, then `commands.export("org/model")`.

Each function has the name of its command, takes the command's options as arguments of the same names, and returns a
result whose `to_json()` is what `--json` prints. A message that names an option, such as --pooling, means the argument
of that name here. The functions are not named `onnxembed.export` and so on because packages have those names.
"""

from onnxembed.commands.adopt import adopt
from onnxembed.commands.doctor import Examination, Finding, doctor
from onnxembed.commands.export import export
from onnxembed.commands.inspect import inspect
from onnxembed.commands.models import KnownModel, KnownModels, models
from onnxembed.commands.new_folder import NewFolder
from onnxembed.commands.verify import Golden, Proved, Verified, verify, verify_golden, verify_proof

__all__ = [
    "Examination",
    "Finding",
    "Golden",
    "KnownModel",
    "KnownModels",
    "NewFolder",
    "Proved",
    "Verified",
    "adopt",
    "doctor",
    "export",
    "inspect",
    "models",
    "verify",
    "verify_golden",
    "verify_proof",
]
