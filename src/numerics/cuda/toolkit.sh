#!/usr/bin/env bash
# The CUDA compiler for `--features cuda` on a machine without a CUDA toolkit: four wheels from PyPI, through your own pip, checked by digest,
# unpacked into the user's cache. Prints what to set:
#
#   eval "$(src/numerics/cuda/toolkit.sh)"
#   cargo build --release --features cuda
#
# nvcc preprocesses with g++, which must be there. For x86-64 Linux; elsewhere install NVIDIA's toolkit.
set -euo pipefail

version=13.0.88
cache=${XDG_CACHE_HOME:-$HOME/.cache}/dpo-eval/nvcc-$version
fail() { echo "toolkit.sh: $1" >&2; exit 1; }

if [ ! -x "$cache/bin/nvcc" ]; then
  [ "$(uname -sm)" = "Linux x86_64" ] || fail "the wheels are for Linux on x86-64; install NVIDIA's CUDA toolkit and set CUDA_HOME"
  command -v g++ >/dev/null || fail "nvcc needs g++: install it (apt-get install g++)"
  python3 -m pip --version >/dev/null 2>&1 || fail "python3 with pip is needed to fetch the wheels"
  mkdir -p "$cache"
  scratch=$(mktemp -d "$cache.XXXXXX")
  trap 'rm -rf "$scratch"' EXIT
  cat > "$scratch/requirements.txt" <<'WHEELS'
nvidia-cuda-nvcc==13.0.88 --hash=sha256:56fe502eb77625a12f25172caa3cdddb4e4c8ba2c8c17dba44b164761b380f03
nvidia-nvvm==13.0.88 --hash=sha256:c5f41ffeb6466944a026dfa5317d7d85355c119bbec279205d22f1869d1054e0
nvidia-cuda-crt==13.0.88 --hash=sha256:2c8043c7c9e02492716426e9919fc78d2c5b3b2a7a768a88e952676b08aa55a4
nvidia-cuda-runtime==13.0.96 --hash=sha256:7f82250d7782aa23b6cfe765ecc7db554bd3c2870c43f3d1821f1d18aebf0548
WHEELS
  echo "fetching the CUDA compiler (100 MB) into $cache" >&2
  python3 -m pip download --quiet --require-hashes --no-deps --only-binary=:all: --platform manylinux2014_x86_64 \
    --platform manylinux2010_x86_64 --dest "$scratch/wheels" --requirement "$scratch/requirements.txt" >&2
  for wheel in "$scratch"/wheels/*.whl; do python3 -m zipfile -e "$wheel" "$scratch/unpacked"; done
  chmod +x "$scratch"/unpacked/nvidia/cu13/bin/* "$scratch"/unpacked/nvidia/cu13/nvvm/bin/*
  rm -rf "$cache"
  mv "$scratch/unpacked/nvidia/cu13" "$cache"
fi
echo "export CUDA_HOME='$cache' NVCC='$cache/bin/nvcc'"
