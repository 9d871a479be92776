# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The whole table of launch digests, beside as many calls of sev-snp-measure."""

import statistics
import time
from collections.abc import Callable
from pathlib import Path

from tests.bench.report import Part, Row, seconds, spread
from tools.pipeline.base.errors import BuildError
from tools.pipeline.measure.digest import Inputs, Launch
from tools.pipeline.recipes.profiles import DEFAULT_PROFILE
from tools.pipeline.tasks.project import Project
from tools.sev.agent.agent_abi import UNBOUND, with_binding
from tools.sev.cpu_models import CPU_MODELS
from tools.sev.formats import DIGESTS_VCPUS

_LIMIT = 0.5  # seconds; the goal
_MODELS = ("EPYC-Rome", "EPYC-Milan", "EPYC-Genoa", "EPYC-Turin")
_MODES = ("sev", "sev-es", "snp")
# Of the counts 1 to 64: calls for these are timed and stand for the others. A call
# takes longer with more vCPUs, evenly, and these lie evenly.
_SAMPLE = (1, 22, 43, 64)

Key = tuple[str, str, int]


def measure(project: Project, *, runs: int) -> Part:
    """Three modes, four models, 64 counts; both sides in this process, in turns, with everything imported."""
    inputs = _inputs(project)
    signatures = {m.name: m.signature for m in CPU_MODELS if m.name in _MODELS}
    whole: list[float] = []
    calls: list[float] = []
    # Run 0 brings library and files into memory.
    for number in range(runs + 1):
        ours, took = _timed(lambda: _table(inputs, signatures))
        theirs, per_call = _sample(inputs, signatures)
        if any(ours[key] != digest for key, digest in theirs.items()):
            raise BuildError("the two sides disagree", where="digests")
        if number:
            whole.append(took)
            calls.append(per_call)
    mine, call = statistics.median(whole), statistics.median(calls)
    count = len(_MODES) * len(_MODELS) * DIGESTS_VCPUS
    rows = (
        Row(
            what=f"launch digests: {len(_MODES)} modes × {len(_MODELS)} models × {DIGESTS_VCPUS} counts",
            measured=seconds(mine),
            beside=f"{seconds(call * count)} ({count} calls of sev-snp-measure; a sample took "
            f"{call * 1000:.1f} ms each)",
            goal="< 0.5 s",
            met=mine < _LIMIT,
        ),
    )
    data = {"table": spread(whole), "call": spread(calls), "calls": count, "sampled_counts": list(_SAMPLE)}
    return Part(rows=rows, data=data)


def _inputs(project: Project) -> Inputs:
    profile = project.recipes.profile(DEFAULT_PROFILE)
    out = project.out(profile)
    if not (out / "OVMF.fd").is_file():
        raise BuildError("is not built", where=str(out), hint="run ./doit build")
    return Inputs(
        firmware=out / "OVMF.fd",
        firmware_size=profile.firmware.size.bytes,
        kernel=out / "vmlinuz",
        initramfs=_existing(out / "initramfs.cpio.zst"),
        cmdline=with_binding(profile.cmdline, UNBOUND),
    )


def _existing(path: Path) -> Path | None:
    return path if path.is_file() else None


def _timed(work: Callable[[], dict[Key, str]]) -> tuple[dict[Key, str], float]:
    start = time.perf_counter()
    result = work()
    return result, time.perf_counter() - start


def _table(inputs: Inputs, signatures: dict[str, int]) -> dict[Key, str]:
    """Everything from the files on, as in the build; of SEV-ES's two VM types one is compared."""
    launch = Launch(inputs)
    table: dict[Key, str] = {}
    for name, signature in signatures.items():
        launch.sev_es(signature, legacy_vm_type=True, up_to=DIGESTS_VCPUS)
        es = launch.sev_es(signature, legacy_vm_type=False, up_to=DIGESTS_VCPUS)
        snp = launch.snp(signature, up_to=DIGESTS_VCPUS)
        for count in range(1, DIGESTS_VCPUS + 1):
            table["sev", name, count] = launch.sev()
            table["sev-es", name, count] = es[count - 1]
            table["snp", name, count] = snp[count - 1]
    return table


def _sample(inputs: Inputs, signatures: dict[str, int]) -> tuple[dict[Key, str], float]:
    """Some of the library's calls: their digests, and the mean time of one in seconds."""
    from sevsnpmeasure import guest, sev_mode  # noqa: PLC0415 (other benchmarks do without it)

    modes = {"sev": "SEV", "sev-es": "SEV_ES", "snp": "SEV_SNP"}
    found: dict[Key, str] = {}
    start = time.perf_counter()
    for mode, library in modes.items():
        for name, signature in signatures.items():
            for count in _SAMPLE:
                digest = guest.calc_launch_digest(
                    sev_mode.SevMode[library],
                    count,
                    signature,
                    str(inputs.firmware),
                    str(inputs.kernel),
                    None if inputs.initramfs is None else str(inputs.initramfs),
                    inputs.cmdline,
                    0x1,
                )
                found[mode, name, count] = digest.hex()
    return found, (time.perf_counter() - start) / len(found)
