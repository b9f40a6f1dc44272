#!/bin/bash
# Submits the array, and a merge that begins when every task of it has succeeded.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)

array=$(sbatch --parsable "$here/recalibrate.sbatch")
# Where there are several clusters the answer is `id;cluster`.
array=${array%%;*}
sbatch --parsable --dependency="afterok:$array" --kill-on-invalid-dep=yes "$here/merge.sbatch" "parts-$array"
