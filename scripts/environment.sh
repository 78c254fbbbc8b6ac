# Sourced by the other scripts: `environment FOLDER EXTRAS` makes a virtual environment with onnxembed in it.
# Safe to repeat: it installs again only when pyproject.toml or the constraints have changed.

say() { printf '\n== %s\n' "$*"; }
fail() { printf 'error: %s\n' "$*" >&2; exit 1; }

find_python() {
  local name
  for name in python3 python3.14 python3.13 python3.12 python3.11 python; do
    if command -v "$name" >/dev/null && "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      echo "$name"
      return
    fi
  done
  fail "onnxembed needs Python 3.11 or newer, and none is on the PATH"
}

environment() {
  local folder=$1 extras=$2 python stamp
  python=$(find_python)
  stamp="$("$python" --version) $extras $(cat pyproject.toml scripts/constraints.txt | cksum)"
  if [ "$(cat "$folder/onnxembed.stamp" 2>/dev/null)" = "$stamp" ]; then
    return
  fi
  say "making the environment $folder with onnxembed[$extras]"
  "$python" -m venv "$folder" || fail "$python cannot make a virtual environment (on Debian: apt install python3-venv)"
  "$folder/bin/python" -m pip install --quiet --quiet --disable-pip-version-check --constraint scripts/constraints.txt \
    --editable ".[$extras]" || fail "pip could not install onnxembed[$extras]; is the package index reachable?"
  echo "$stamp" > "$folder/onnxembed.stamp"
}
