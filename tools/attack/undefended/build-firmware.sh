#!/bin/bash
# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
#
# Builds two kinds of OVMF that lack a defence, for ./doit attack. Runs inside the sandbox only, as build.sh does:
#   /build/src       the patched edk2 tree
#   /inputs          build.sh, platform; in /inputs/back the patches that are taken back, in this order
#   /out             receives upstream.fd (the verifier as upstream has it), unverified.fd (no verifier at all)
# usage: build-firmware.sh RELEASE|DEBUG KIBIBYTES
set -euo pipefail
target=$1 size=$2
none=OvmfPkg/Library/BlobVerifierLibNull/BlobVerifierLibNull.inf

cd /build/src
for input in /inputs/back/*; do
    # As apply-patches.sh: edk2's files have CR LF, the patches do not.
    awk '
        /^diff --git / { hunk = 0 }
        /^@@ /         { hunk = 1; print; next }
        hunk           { printf "%s\r\n", $0; next }
                       { print }
    ' "$input" > /tmp/crlf.patch
    patch --reverse -p1 --unified --fuzz=0 --batch --binary --no-backup-if-mismatch --reject-file=- \
        --input=/tmp/crlf.patch
done
cd /build
bash /inputs/build.sh "$target" "$size"
mv /out/OVMF.fd /out/upstream.fd
rm /out/OVMF.report.txt

# Again without a verifier, as the platforms that do not measure are linked.
export WORKSPACE=/build PACKAGES_PATH=/build/src EDK_TOOLS_PATH=/build/src/BaseTools CONF_PATH=/build/Conf
export PYTHON_COMMAND=/usr/bin/python3 PYTHONHASHSEED=0 PYTHONDONTWRITEBYTECODE=1
export PATH=/build/src/BaseTools/BinWrappers/PosixLike:/usr/bin:/usr/sbin
unset MAKEFLAGS MFLAGS MAKELEVEL GNUMAKEFLAGS
build -p SevGuest/SevGuest.dsc -a X64 -b "$target" -t GCC -n 1 -D "FD_KB=$size" -D "VERIFIER=$none"
cmp -s "Build/SevGuest/${target}_GCC/FV/OVMF.fd" /out/upstream.fd && { echo "VERIFIER changes nothing"; exit 1; }
cp "Build/SevGuest/${target}_GCC/FV/OVMF.fd" /out/unverified.fd
