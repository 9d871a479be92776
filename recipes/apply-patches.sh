#!/bin/sh
# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
#
# Applies patches to the source tree in the current directory. Runs inside the sandbox only.
# usage: apply-patches.sh [--crlf] PATCH...
#   --crlf   the tree's files end their lines with CR LF, the patches do not: it is added to the lines of the hunks
# A patch that does not fit ends it with status 2, and a last line that names patch, file and hunk. An offset is no
# failure, it stands in the output: the whole context was found elsewhere. Fuzz, which ignores context, is one.
set -eu

crlf=no
if [ "${1:-}" = --crlf ]; then crlf=yes; shift; fi

for input in "$@"; do
    name=${input#/inputs/}
    name=${name#/tmp/}
    echo "=== $name"
    if [ "$crlf" = yes ]; then
        awk '
            /^diff --git / { hunk = 0 }
            /^@@ /         { hunk = 1; print; next }
            hunk           { printf "%s\r\n", $0; next }
                           { print }
        ' "$input" > /tmp/crlf.patch
        input=/tmp/crlf.patch
    fi
    # No fuzz, no questions, no reversal of a patch that is in already, nothing left behind, line ends as they are.
    if patch -p1 --unified --fuzz=0 --batch --forward --binary --no-backup-if-mismatch --reject-file=- \
        --input="$input" > /tmp/patch.log 2>&1
    then
        cat /tmp/patch.log
        continue
    fi
    cat /tmp/patch.log
    awk -v name="$name" '
        why != ""                { next }
        /^patching file /        { file = substr($0, 15) }
        /^\|\+\+\+ /             { file = substr($2, 3) }
        /^Hunk #[0-9]+ FAILED/   { why = file ": hunk " substr($2, 2) " does not fit at line " $5 + 0 }
        /previously applied/     { why = file ": is applied already" }
        /^No file to patch/      { why = file ": no such file in the source" }
        /^The next patch would / { why = $0; sub(/,$/, "", why); why = why ", which is there already" }
        /^patch: /               { why = $0 }
                                 { last = $0 }
        END { print name ": " (why == "" ? last : why) "; refresh the patch against the pinned source" }
    ' /tmp/patch.log
    exit 2
done
