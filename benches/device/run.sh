#!/usr/bin/env bash
# On the GPU machine, in the folder that prepare.sh made: checks the bits first, then measures. Nothing is built; about ten minutes.
# Leaves what it found in $OUT, or in `found/`.
set -uo pipefail
cd "$(dirname "$0")"
found=${OUT:-found}
mkdir -p "$found"
export DPO_EVAL_TEST_DEVICE=0 DPO_EVAL_OFFLINE=1
if [ -f libonnxruntime.so ]; then export ORT_DYLIB_PATH=$PWD/libonnxruntime.so; fi
nvidia-smi | tee "$found/machine.txt"
./dpo-eval doctor | tee -a "$found/machine.txt"

failed=0
check() { # NAME SECONDS COMMAND…
  local name=$1 limit=$2 started=$SECONDS
  shift 2
  if timeout "$limit" "$@" > "$found/$name.txt" 2>&1; then echo "pass  $name ($((SECONDS - started)) s)"; else
    echo "FAIL  $name ($((SECONDS - started)) s): the end of $found/$name.txt:"; tail -n 15 "$found/$name.txt"; failed=1
  fi
}
# Every operation against the definition or the CPU's kernels; whole trainings of every family, decoding and scoring.
check operations 150 ./numeric-tests device
check attention 150 ./numeric-tests attention
check trainings 150 ./tests train::tests::device
# The digests of a CPU's run, weights, logs, completions and scores, out of this device.
check quickstart 300 ./dpo-eval suite run suites/quickstart.toml --gate --store "$found/store" --report-dir "$found/report"
check table 150 ./dpo-eval-device-benches 0
cat "$found/table.txt"
rm -rf "$found/store"
exit $failed
