#!/bin/sh
# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
#
# Builds a static mkfs.erofs. Runs inside the sandbox only:
#   /inputs/source  erofs-utils as published
#   /inputs/config.h
#   /out            receives mkfs.erofs
set -eu

mkdir /build/src
cd /build/src
tar --extract --gzip --file=/inputs/source --strip-components=1 --no-same-owner --no-same-permissions

# Every file of the library but those that need another library, and the thread pool that only they use.
sources=$(find lib -maxdepth 1 -name '*.c' \
    ! -name 'compressor_l[iz]*.c' ! -name workqueue.c | LC_ALL=C sort)
version=$(sed -n 1p VERSION)

# __DATE__ and __TIME__ would be the machine's: an error, should a version use them.
# It reads what images say of themselves, so it gets what protects a program from its input.
# shellcheck disable=SC2086  # the list of files is meant to be split
gcc -std=gnu11 -O2 -Wall -Werror=date-time -DNDEBUG -D_FILE_OFFSET_BITS=64 \
    -fstack-protector-strong -D_FORTIFY_SOURCE=3 -fPIE -ffunction-sections -fdata-sections \
    -DHAVE_CONFIG_H -I/inputs "-DPACKAGE_VERSION=\"$version\"" -I. -Iinclude -Ilib \
    -static-pie -s -Wl,--gc-sections,--build-id=none,-z,relro,-z,now \
    -o /build/mkfs.erofs mkfs/main.c $sources

# It runs on hosts that have none of our libraries.
if readelf --program-headers --wide /build/mkfs.erofs | grep INTERP; then
    echo "build.sh: mkfs.erofs is not static" >&2
    exit 1
fi
/build/mkfs.erofs -V | grep -qF "mkfs.erofs (erofs-utils) $version" || {
    echo "build.sh: mkfs.erofs does not run, or is not $version" >&2
    exit 1
}

cp /build/mkfs.erofs /out/mkfs.erofs.partial
mv /out/mkfs.erofs.partial /out/mkfs.erofs
