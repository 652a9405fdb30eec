#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Run a command with memory, a /dev/shm and a disk for temporary files that no other process uses. Needs root and cgroups
# of version 1 or 2. MEMORY and SHM are sizes such as 6G; DISK is the file that holds the disk.
# Usage: sudo MEMORY=6G tests/soak/isolated.sh python -m tests.soak chaos --isolated
set -euo pipefail
if [[ ${1-} != --inside ]]; then
    exec unshare --mount --propagation private "$0" --inside "$@"
fi
shift
disk=${DISK:-$(mktemp /var/tmp/soak-disk.XXXXXX)}
folder=$(mktemp -d /var/tmp/soak.XXXXXX)
cgroup=/sys/fs/cgroup/memory/soak-$$
limit=memory.limit_in_bytes
if [[ ! -d /sys/fs/cgroup/memory ]]; then
    cgroup=/sys/fs/cgroup/soak-$$
    limit=memory.max
fi
clean_up() {
    umount "${cgroup%/*}"
    echo $$ >"${cgroup%/*}/cgroup.procs"
    # What a command that was killed has left.
    while read -r process; do kill -KILL "$process"; done <"$cgroup/cgroup.procs"
    for _ in {1..50}; do
        rmdir "$cgroup" 2>/dev/null && break
        sleep 0.2
    done
    umount "$folder"
    rmdir "$folder"
    rm -f "$disk"
}
trap clean_up EXIT
mount -t tmpfs -o "size=${SHM:-1G}" tmpfs /dev/shm
truncate -s 4G "$disk"
mkfs.ext4 -q "$disk"
mount -o loop "$disk" "$folder"
mkdir "$cgroup"
echo "${MEMORY:-6G}" >"$cgroup/$limit"
echo $$ >"$cgroup/cgroup.procs"
# As in a container, where programs read their own limit.
mount --bind "$cgroup" "${cgroup%/*}"
TMPDIR=$folder "$@"
