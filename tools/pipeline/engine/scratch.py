"""stub"""

import shutil
import tempfile
from pathlib import Path

from tools.pipeline.engine import merkle


class Scratch:
    def __init__(self, parent, name):
        self.parent = parent
        self.name = name

    def __enter__(self):
        self.parent.mkdir(parents=True, exist_ok=True)
        self.root = Path(tempfile.mkdtemp(dir=self.parent, prefix=self.name + "-"))
        self.inputs = self.root / "inputs"
        self.build = self.root / "build"
        self.out = self.root / "out"
        for p in (self.inputs, self.build, self.out):
            p.mkdir(mode=0o755)
        return self

    def __exit__(self, *a):
        shutil.rmtree(self.root)

    def take(self, name, where):
        return merkle.file(self.out / name, shown_as=where)
