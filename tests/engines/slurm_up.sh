#!/usr/bin/env bash
# Brings a Slurm of one node up on the loopback of this machine, for tests/engines/test_slurm.py. For containers: as root.
#
#   tests/engines/slurm_up.sh [FOLDER]            needs slurmctld, slurmd and munged
#   tests/engines/slurm_up.sh --install [FOLDER]  installs them first (Debian, Ubuntu: apt-get install slurm-wlm munge)
#   export SLURM_CONF=FOLDER/slurm.conf           as it prints; then: pytest tests/engines/test_slurm.py --cluster
#   tests/engines/slurm_down.sh [FOLDER]          ends what it started
#
# Everything it writes is in FOLDER (default: crowd-slurm in $TMPDIR or /tmp): configuration, key, logs, state. The node has two CPUs,
# whatever the machine has, and munge has a socket and a key of its own.
set -euo pipefail

if [[ ${1:-} == --install ]]; then
    shift
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends slurm-wlm munge
fi
folder=${1:-${TMPDIR:-/tmp}/crowd-slurm}
for command in munged slurmctld slurmd sinfo; do
    if ! command -v "$command" >/dev/null; then
        echo "slurm_up.sh: $command is not installed; with --install as the first word this script installs it" >&2
        exit 1
    fi
done
if [[ $(id -u) != 0 ]]; then
    echo "slurm_up.sh: slurmd runs jobs for their users and must be started by root" >&2
    exit 1
fi

mkdir -p "$folder"/{state,spool,log}
chmod 755 "$folder"
host=$(hostname -s)
cat >"$folder/slurm.conf" <<END
ClusterName=crowd
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
SlurmctldPort=16817
SlurmdPort=16818
AuthType=auth/munge
AuthInfo=socket=$folder/munge.socket,cred_expire=20
CryptoType=crypto/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=5
SchedulerParameters=sched_interval=5
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/log/slurmctld.log
SlurmdLogFile=$folder/log/slurmd.log
NodeName=$host NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
PartitionName=main Nodes=$host Default=YES MaxTime=INFINITE State=UP
END
export SLURM_CONF=$folder/slurm.conf

if [[ ! -s $folder/munge.key ]]; then
    (umask 077 && head -c 1024 /dev/urandom >"$folder/munge.key")
fi
munged --force --key-file="$folder/munge.key" --socket="$folder/munge.socket" --pid-file="$folder/munged.pid" \
    --log-file="$folder/log/munged.log" --seed-file="$folder/munge.seed" --num-threads=2
slurmctld -c
slurmd -c
for _ in $(seq 30); do
    if [[ $(sinfo --noheader --format=%t 2>/dev/null) == idle ]]; then
        sinfo
        echo "Slurm is up: export SLURM_CONF=$SLURM_CONF"
        exit 0
    fi
    sleep 1
done
echo "slurm_up.sh: the node did not come up within 30 s; see $folder/log" >&2
exit 1
