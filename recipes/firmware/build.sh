#!/bin/bash
# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
#
# Builds OVMF: edk2, and the platform of recipes/firmware/platform/. Runs inside the sandbox only:
#   /build   scratch folder with the patched edk2 source tree in /build/src
#   /inputs  platform, the folder of that name
#   /out     receives OVMF.fd and OVMF.report.txt (each module of the image and the libraries linked into it)
# usage: build.sh RELEASE|DEBUG KIBIBYTES
set -euo pipefail

die() { echo "build.sh: $1" >&2; exit 1; }

[ $# -eq 2 ] || die "usage: build.sh RELEASE|DEBUG KIBIBYTES"
target=$1 size=$2
case $target in RELEASE|DEBUG) ;; *) die "target '$target': RELEASE or DEBUG" ;; esac
src=/build/src
[ -f $src/OvmfPkg/AmdSev/AmdSevX64.dsc ] || die "$src is not an edk2 tree"
[ ! -e $src/SevGuest ] || die "$src has a platform of an earlier build"
cp -r /inputs/platform $src/SevGuest
grep -q "FD_KB) == $size$" $src/SevGuest/SevGuest.fdf || die "flash size '$size': SevGuest.fdf has no layout for it"
[ ! -e /build/Build ] || die "/build holds objects of an earlier build"

# GenFw --zero blanks the debug entry but keeps its length, so both paths must be constant: /build/src, /build.
mkdir /build/Conf
export WORKSPACE=/build PACKAGES_PATH=$src EDK_TOOLS_PATH=$src/BaseTools CONF_PATH=/build/Conf
export PYTHON_COMMAND=/usr/bin/python3 PYTHONHASHSEED=0 PYTHONDONTWRITEBYTECODE=1
export PATH=$src/BaseTools/BinWrappers/PosixLike:/usr/bin:/usr/sbin
for name in build_rule tools_def target; do
    cp "$src/BaseTools/Conf/$name.template" "/build/Conf/$name.txt"
done

# edk2's build starts makes of its own and knows no job server: it gets the tokens that are free now, and nothing of
# MAKEFLAGS reaches the makes in here. (One module at a time, with makes that share the server, takes thrice as long.)
jobs=1 tokens=/build/tokens server=${MAKEFLAGS##*fifo:}
: > "$tokens"
while [ "$jobs" -lt "$(nproc)" ] && dd if="$server" bs=1 count=1 iflag=nonblock status=none >> "$tokens" 2> /dev/null &&
    [ "$(stat -c %s "$tokens")" -eq "$jobs" ]
do jobs=$((jobs + 1)); done
trap 'cat "$tokens" > "$server"' EXIT
unset MAKEFLAGS MFLAGS MAKELEVEL GNUMAKEFLAGS

# Only the host tools that this platform calls: no forms (VfrCompile), no Brotli, which Debian's source does not have.
make -C $src/BaseTools/Source/C -j "$jobs" EDK2_PATH=$src \
    APPLICATIONS="GenFfs GenFv GenFw GenSec LzmaCompress"

# GCC is edk2's tag for GCC >= 5 with link-time optimisation (GCC5 is its deprecated former name).
cd /build
build \
    -p SevGuest/SevGuest.dsc \
    -a X64 \
    -b "$target" \
    -t GCC \
    -n "$jobs" \
    -D "FD_KB=$size" \
    -Y LIBRARY \
    -y /build/report.txt

# The report itself holds times and host paths; modules and libraries do not change from run to run.
awk '/^Module INF Path:/ { print $4; next } /^\/build\/src\/[^ ]*\.inf$/ { print "    " substr($0, 12) }' \
    /build/report.txt > /out/OVMF.report.txt
grep -q '^    OvmfPkg/AmdSev/BlobVerifierLibSevHashes/BlobVerifierLibSevHashes.inf$' /out/OVMF.report.txt ||
    die "the library that verifies kernel, initrd and command line is not linked in"
! grep -E 'BlobVerifierLibNull|X86QemuLoadImageLib' /out/OVMF.report.txt ||
    die "a library that skips verification is linked in"
! grep -E '/(Pci|Virtio|Usb|Ata|Scsi|Fat|Udf|Ebc|Bds)[A-Za-z0-9]*Dxe' /out/OVMF.report.txt ||
    die "a driver is built in that looks for something else to boot than the measured kernel"

# Last, and by rename: OVMF.fd exists only when all of the above succeeded.
cp "/build/Build/SevGuest/${target}_GCC/FV/OVMF.fd" /out/OVMF.fd.tmp
mv /out/OVMF.fd.tmp /out/OVMF.fd
