#!/bin/sh
# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
#
# Builds a static QEMU with what our guests use. Runs inside the sandbox only:
#   /build  scratch folder with the patched source tree in /build/src
#   /inputs/devices.mak
#   /out    receives qemu-lite and qemu-lite.devices.txt: what it says of itself, for the audit
set -eu

cp /inputs/devices.mak /build/src/configs/devices/x86_64-softmmu/lite.mak
mkdir /build/obj
cd /build/obj

# ninja knows no job server before 1.13: it gets the tokens that are free now, and gives them back at the end.
jobs=1 tokens=/build/tokens server=${MAKEFLAGS##*fifo:}
: > "$tokens"
while [ "$jobs" -lt "$(nproc)" ] && dd if="$server" bs=1 count=1 iflag=nonblock status=none >> "$tokens" 2> /dev/null &&
    [ "$(stat -c %s "$tokens")" -eq "$jobs" ]
do jobs=$((jobs + 1)); done
trap 'cat "$tokens" > "$server"' EXIT
unset MAKEFLAGS MFLAGS MAKELEVEL GNUMAKEFLAGS

# Without defaults: what is not named here is not there. The prefix is where it would look for files, of which it needs
# none. A build folder has one path, so no path is in the program by chance; debug information is left out with -g0.
/build/src/configure \
    --static --prefix=/usr --target-list=x86_64-softmmu --with-devices-x86_64=lite \
    --without-default-features --without-default-devices \
    --enable-system --enable-kvm --enable-tcg --enable-seccomp --enable-vhost-kernel --enable-vhost-net \
    --enable-attr --enable-virtfs \
    --disable-docs --disable-tools --disable-guest-agent --disable-install-blobs --disable-werror \
    --disable-debug-info --extra-cflags='-g0 -Werror=date-time -ffunction-sections -fdata-sections' \
    --extra-ldflags='-Wl,--gc-sections,--build-id=none' --with-pkgversion=sev-artifacts
ninja -j "$jobs" qemu-system-x86_64
strip --strip-all -o /build/qemu-lite qemu-system-x86_64

# It runs on hosts that have none of our libraries.
if readelf --program-headers --wide /build/qemu-lite | grep INTERP; then
    echo "build.sh: qemu-lite is not static" >&2
    exit 1
fi
# What it says of itself, a line for each thing; asked elsewhere, with nothing beside it. CPU models are no devices.
mkdir /build/alone
cd /build/alone
for option in accel chardev device machine netdev object; do
    case $option in machine) set -- ;; *) set -- -machine none ;; esac
    /build/qemu-lite -nodefaults "$@" "-$option" help > help.txt
    awk -v kind="$option" '
        kind == "device" { if (sub(/^name "/, "")) { sub(/".*/, ""); if (!/-x86_64-cpu$/) print kind, $0 } next }
        NF && !/: *$/     { print kind, $1 }
    ' help.txt
done | LC_ALL=C sort > /out/qemu-lite.devices.txt

cp /build/qemu-lite /out/qemu-lite.partial
mv /out/qemu-lite.partial /out/qemu-lite
