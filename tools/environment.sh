# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=sh
#
# For ./doit and tools/setup.sh, which set $here, the checkout: does its .venv fit?

# shellcheck disable=SC2154 # see above
venv=$here/.venv

# .venv/stamp is written last when .venv is made. It has two lines: the checkout that the programs in .venv/bin name,
# and the Python whose version the packages are for. No program but cmp is started: this runs at every ./doit.
fits() {
    [ -e "$venv/stamp" ] || return 1
    { IFS= read -r place && IFS= read -r python; } <"$venv/stamp" || return 1
    # shellcheck disable=SC3013 # dash, bash and busybox know -ef
    [ "$place" = "$here" ] && [ -x "$venv/bin/python" ] && [ "$venv/bin/python" -ef "$python" ] &&
        cmp -s "$here/requirements.lock" "$venv/requirements.lock"
}
