#!/bin/sh
# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
#
# Patches an unpacked edk2 source tree, the current directory. Runs inside the sandbox, with this folder mounted
# beside it. First the named patches of Debian's pinned archive (debian.toml), then patches/series.
# usage: prepare.sh DEBIAN-TAR-XZ [DEBIAN-PATCH ...]
#
# Fuzz is refused and so is everything else but a clean application; the last lines of the log name patch and hunk.
set -eu

[ $# -ge 1 ] || { echo "usage: prepare.sh DEBIAN-TAR-XZ [DEBIAN-PATCH ...]" >&2; exit 2; }
[ -f OvmfPkg/AmdSev/AmdSevX64.dsc ] || { echo "prepare.sh: $PWD is not an edk2 tree" >&2; exit 1; }
here=$(cd "$(dirname "$0")" && pwd)
debian=$1
shift
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# Each patch of Debian's package is judged in debian.toml, applied or not: a new one must not be missed.
tar --list --xz --file="$debian" | sed -n 's#^debian/patches/\([^/]*\)$#\1#p' | grep -v -x series | LC_ALL=C sort > "$scratch/there"
LC_ALL=C sort "$here/judged" > "$scratch/judged"
where=$(cat "$here/where")
for name in $(comm -23 "$scratch/there" "$scratch/judged"); do
    echo "$where: $name of Debian's edk2 is not judged; add it, with a reason"
    exit 2
done
for name in $(comm -13 "$scratch/there" "$scratch/judged"); do
    echo "$where: $name is not in Debian's edk2 any more; remove it"
    exit 2
done

apply() {
    echo "=== applying $1"
    # --binary: edk2's files end their lines with CR LF, those of OpenSSL and the like do not.
    patch -p1 --unified --fuzz=0 --batch --forward --binary --no-backup-if-mismatch --reject-file=- --input="$2" 2>&1
}

for name in "$@"; do
    tar --extract --xz --file="$debian" --to-stdout "debian/patches/$name" > "$scratch/$name"
    apply "$name" "$scratch/$name"
done

# Our own patches touch edk2's own files only. They are kept with plain line ends, which every tool passes on
# unharmed, and get the CR back here: on the lines of each hunk, not on the headers between hunks.
grep -v -e '^#' -e '^$' "$here/patches/series" | while read -r name; do
    awk '
        /^diff --git / { hunk = 0 }
        /^@@ /         { hunk = 1; print; next }
        hunk           { printf "%s\r\n", $0; next }
                       { print }
    ' "$here/patches/$name" > "$scratch/$name"
    apply "$name" "$scratch/$name"
done
