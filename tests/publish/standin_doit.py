# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""What `./doit` is in the small checkout of test_watch.py: a rebuild that takes no time, and the real endorsement.

standin_doit.py WORLD rebuild --manifest FILE | endorse --profile … --to …; WORLD/log has a line for each call. While
WORLD/hold is there, a rebuild does not end. It gives the bytes of WORLD/built, or others while WORLD/other is there, or
WORLD/other-COMMIT at that commit; while WORLD/failing is there, or WORLD/failing-COMMIT at that commit, it fails.
"""

import json
import os
import shutil
import sys
import time
from dataclasses import replace
from pathlib import Path

from tests.publish import kit, people
from tools.pipeline.publish import checkout
from tools.pipeline.repro import endorse


def main(world: Path, command: str, *words: str) -> int:
    here = Path.cwd()
    with (world / "log").open("a") as log:
        log.write(f"{command}\n")
    told = [name for name in os.environ if "REMOTE" in name]
    assert not told, f"a rebuild is not told who shares results: {told}"
    options = dict(zip(words[::2], words[1::2], strict=False))
    result = here / "build/rebuild/result.json"
    if command == "rebuild":
        while (world / "hold").exists():
            time.sleep(0.02)
        for name in ("out", "cache"):
            shutil.copytree(world / "built" / name, here / name)
        commit = checkout.look(here).commit
        if (world / "failing").exists() or (world / f"failing-{commit}").exists():
            return 1
        if (world / "other").exists() or (world / f"other-{commit}").exists():
            (here / "out/manifest.json").write_text("{}")
        result.parent.mkdir(parents=True)
        good = (here / "out/manifest.json").read_bytes() == Path(options["--manifest"]).read_bytes()
        made = people.result_of(kit.checkout_at(here)) if good else None
        result.write_text(made.read_text() if made else json.dumps({"reproduced": False}))
        return 0 if good else 1
    wish = replace(people.ENDORSE, to=options["--to"], key=options["--key"], days=options["--days"], plain_http=True)
    endorse.endorse(kit.checkout_at(here), result, wish)
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), *sys.argv[2:]))
