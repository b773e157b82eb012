#!/usr/bin/env bash
# Builds everything that a GPU machine needs and puts it into one folder, and that into one archive: nothing is built there.
#
#   benches/device/prepare.sh [FOLDER]     (target/device)
set -euo pipefail
cd "$(dirname "$0")/../.."
folder=${1:-target/device}
if [ -z "${NVCC:-}${CUDA_HOME:-}${CUDA_PATH:-}" ] && ! command -v nvcc >/dev/null; then eval "$(src/numerics/cuda/toolkit.sh)"; fi

export CARGO_PROFILE_RELEASE_DEBUG=false CARGO_PROFILE_RELEASE_STRIP=symbols
cargo build --release --features cuda
cargo build --release --features cuda --package dpo-eval-device-benches
tests() { # PACKAGE NAME
  cargo test --release --features cuda --package "$1" --lib --no-run --message-format json |
    python3 -c 'import json, sys
for line in sys.stdin:
    built = json.loads(line)
    if built.get("executable") and built.get("profile", {}).get("test") and built["target"]["name"] == sys.argv[1]: print(built["executable"])' "$2"
}
numeric_tests=$(tests dpo-eval-numerics dpo_eval_numerics)
tests=$(tests dpo-eval dpo_eval)

rm -rf "$folder" && mkdir -p "$folder/suites" "$folder/golden"
cp target/release/dpo-eval target/release/dpo-eval-device-benches benches/device/run.sh "$folder"
cp "$numeric_tests" "$folder/numeric-tests"
cp "$tests" "$folder/tests"
cp golden/quickstart.json "$folder/golden"
{ sed -n '1,/^name/p' suites/quickstart.toml; echo 'device = "cuda"'; sed '1,/^name/d' suites/quickstart.toml; } > "$folder/suites/quickstart.toml"
# The judges' library, as it lies in the cache.
library=$(find "${XDG_CACHE_HOME:-$HOME/.cache}/dpo-eval" -name 'libonnxruntime.so*' -type f 2>/dev/null | head -n 1)
if [ -n "$library" ]; then cp "$library" "$folder/libonnxruntime.so"; fi
tar -C "$(dirname "$folder")" -czf "$folder.tar.gz" "$(basename "$folder")"
du -sh "$folder" "$folder.tar.gz"
