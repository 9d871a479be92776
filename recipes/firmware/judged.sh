#!/bin/sh
# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
#
# Compares the patches of Debian's edk2 package with the list of those that somebody has judged, applied or not.
# usage: judged.sh FOLDER-OF-PATCHES LIST WHERE; a difference ends with status 2 and one line that begins with WHERE
set -eu

find "$1" -mindepth 1 -maxdepth 1 ! -name series -printf '%f\n' | LC_ALL=C sort > /tmp/there
LC_ALL=C sort "$2" > /tmp/judged
for name in $(comm -23 /tmp/there /tmp/judged); do
    echo "$3: $name of Debian's edk2 is not judged; add it, with a reason"
    exit 2
done
for name in $(comm -13 /tmp/there /tmp/judged); do
    echo "$3: $name is not in Debian's edk2 any more; remove it"
    exit 2
done
