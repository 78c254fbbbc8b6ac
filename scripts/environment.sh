# Sourced by the other scripts: `environment FOLDER EXTRAS [PACKAGE...]` makes a virtual environment with
# onnxembed, and perhaps other packages, in it.
# Safe to repeat: it installs again only when pyproject.toml or the constraints have changed.

# Tests and benchmarks import ONNX Runtime without onnxembed, too, and are to send nothing either.
export ORT_DISABLE_TELEMETRY=${ORT_DISABLE_TELEMETRY:-1}

# One more extra where the processor computes in bf16: OpenVINO does it there.
bf16=
if grep -qsE 'avx512_bf16|amx_bf16' /proc/cpuinfo; then bf16=,openvino; fi

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
  install "$1" scripts/constraints.txt "onnxembed[$2]" --editable ".[$2]" "${@:3}"
}

# `install FOLDER CONSTRAINTS NAME PIP-ARGUMENTS...` makes any environment, with the same care.
install() {
  local folder=$1 constraints=$2 name=$3 python stamp
  shift 3
  python=$(find_python)
  stamp="$("$python" --version) $* $(cat pyproject.toml "$constraints" | cksum)"
  if [ "$(cat "$folder/onnxembed.stamp" 2>/dev/null)" = "$stamp" ]; then
    return
  fi
  say "making the environment $folder with $name"
  "$python" -m venv "$folder" || fail "$python cannot make a virtual environment (on Debian: apt install python3-venv)"
  "$folder/bin/python" -m pip install --quiet --quiet --disable-pip-version-check --constraint "$constraints" \
    "$@" || fail "pip could not install $name; is the package index reachable?"
  echo "$stamp" > "$folder/onnxembed.stamp"
}
