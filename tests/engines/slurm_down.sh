#!/usr/bin/env bash
# Ends the Slurm that slurm_up.sh brought up: tests/engines/slurm_down.sh [FOLDER]. Its folder stays.
set -uo pipefail
folder=${1:-${TMPDIR:-/tmp}/crowd-slurm}
export SLURM_CONF=$folder/slurm.conf
scancel --user="$(id -un)" 2>/dev/null
for name in slurmd slurmctld munged; do
    if [[ -s $folder/$name.pid ]]; then
        kill "$(cat "$folder/$name.pid")" 2>/dev/null && echo "ended $name"
    fi
done
exit 0
