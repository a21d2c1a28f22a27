"""Compare pyvips and Pillow at the work of the image handlers, on photographs of camera size.

    python tests/scenarios/bench/images.py [FOLDER OF PHOTOGRAPHS]

Without a folder it uses the photographs that scikit-learn and scikit-image ship, if these are installed.
Each is enlarged to 4000 x 3000 pixels and given grain, so that the files are as long as a camera's. Every
measurement is a process of its own, with the files in the page cache. The time is processor time of all
threads together, because a slot is one core, and the median of the runs after a first one. The memory is the
peak above that of the interpreter with the library imported.
"""

import argparse
import importlib.util
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

RUNS = 3
JOBS = {
    "jpeg 12 MP -> jpeg 320": ("jpg", "jpg", 320),
    "jpeg 12 MP -> webp 320": ("jpg", "webp", 320),
    "jpeg 12 MP -> jpeg 1600": ("jpg", "jpg", 1600),
    "png 12 MP -> jpeg 320": ("png", "jpg", 320),
    "webp 12 MP -> jpeg 320": ("webp", "jpg", 320),
    "jpeg 12 MP -> png": ("jpg", "png", None),
    "jpeg 12 MP -> webp": ("jpg", "webp", None),
    "jpeg 12 MP -> jpeg": ("jpg", "jpg", None),
    "png 12 MP -> jpeg": ("png", "jpg", None),
    "jpeg 108 MP -> jpeg 1600": ("large.jpg", "jpg", 1600),
    "jpeg 108 MP -> jpeg": ("large.jpg", "jpg", None),
}


def main() -> None:
    """Make the material, run every pair of library and job, print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--one", nargs=4, metavar=("LIBRARY", "FOLDER", "JOB", "OUT"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        library, folder, job, out = arguments.one
        print(json.dumps(measure(library, Path(folder), job, Path(out))))
        return
    with tempfile.TemporaryDirectory() as scratch:
        count = make_material(arguments.folder, Path(scratch))
        length = statistics.mean(path.stat().st_size for path in Path(scratch).glob("[0-9].jpg")) / 1e6
        print(
            f"{count} photographs, 12 MP and {length:.1f} MB as JPEG in the mean; {RUNS} runs after a first"
        )
        print("processor seconds a photograph, MB of memory at the peak, length of the result pillow/pyvips")
        print(f"{'job':<26}{'pillow s':>10}{'pyvips s':>10}{'pillow MB':>11}{'pyvips MB':>11}{'size':>18}")
        for job in JOBS:
            p, v = (_in_process(library, scratch, job) for library in ("pillow", "pyvips"))
            sizes = f"{p['kb']:.0f}/{v['kb']:.0f} kB"
            print(
                f"{job:<26}{p['seconds']:>10.3f}{v['seconds']:>10.3f}{p['mb']:>11.0f}{v['mb']:>11.0f}{sizes:>18}"
            )


def make_material(folder: Path | None, scratch: Path) -> int:
    """Write each photograph as 12-megapixel JPEG, PNG and WebP into `scratch`; return how many there are."""
    from PIL import Image, ImageChops

    found = sorted(folder.glob("*.[jp][pn]g")) if folder else list(_shipped())
    for number, path in enumerate(found):
        with Image.open(path) as opened:
            large = opened.convert("RGB").resize((4000, 3000), Image.Resampling.LANCZOS)
        grain = Image.effect_noise(large.size, 6).convert("RGB")
        large = ImageChops.add(large, grain, 1, -128)
        large.save(scratch / f"{number}.jpg", quality=92)
        large.save(scratch / f"{number}.png", compress_level=1)
        large.save(scratch / f"{number}.webp", quality=88, method=0)
        if not number:
            large.resize((12_000, 9_000)).save(scratch / f"{number}.large.jpg", quality=92)
    return len(found)


def _shipped() -> list[Path]:
    names = {"sklearn": "datasets/images/*.jpg", "skimage": "data/[r]*.jpg"}
    found: list[Path] = []
    for package, pattern in names.items():
        spec = importlib.util.find_spec(package)
        if spec and spec.origin:
            found += sorted(Path(spec.origin).parent.glob(pattern))
    if not found:
        sys.exit("no photographs: name a folder of them, or install scikit-learn and scikit-image")
    return found


def _in_process(library: str, folder: str, job: str) -> dict[str, float]:
    command = [sys.executable, __file__, "--one", library, folder, job, folder]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    result: dict[str, float] = json.loads(done.stdout)
    return result


def measure(library: str, folder: Path, job: str, out: Path) -> dict[str, float]:
    """Run one job over all photographs with one library, and return the median time and the peak memory."""
    source, target, box = JOBS[job]
    work = {"pillow": _pillow, "pyvips": _pyvips}[library]()
    before = _peak_mb()
    result = out / f"out.{target}"
    times = []
    paths = sorted(folder.glob(f"[0-9].{source}"))
    for run in range(RUNS + 1):
        for path in paths:
            began = time.process_time()
            work(str(path), str(result), box)
            if run:
                times.append(time.process_time() - began)
    kb = result.stat().st_size / 1000
    return {"seconds": statistics.median(times), "mb": _peak_mb() - before, "kb": kb}


def _peak_mb() -> float:
    """Return the peak of this process alone; getrusage's is inherited from the process that started it."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def _pillow() -> Callable[[str, str, int | None], None]:
    from PIL import Image, ImageOps

    Image.init()
    options: dict[str, dict[str, Any]] = {
        "jpg": {"quality": 82, "optimize": True},
        "png": {"compress_level": 6},
        "webp": {"quality": 82},
    }

    def work(source: str, target: str, box: int | None) -> None:
        with Image.open(source) as image:
            if box:
                image.thumbnail((box, box), Image.Resampling.LANCZOS, reducing_gap=2.0)
            upright = ImageOps.exif_transpose(image)
            upright.save(target, **options[target.rsplit(".", 1)[1]])

    return work


def _pyvips() -> Callable[[str, str, int | None], None]:
    import pyvips

    pyvips.concurrency_set(1)
    pyvips.cache_set_max(0)
    options: dict[str, dict[str, Any]] = {
        "jpg": {"Q": 82},
        "png": {"filter": "all"},
        "webp": {"Q": 82},
    }

    def work(source: str, target: str, box: int | None) -> None:
        if box:
            image = pyvips.Image.thumbnail(source, box, height=box, size="down", fail_on="error")
        else:
            image = pyvips.Image.new_from_file(source, access="sequential", fail_on="error").autorot()
        extra = dict(options[target.rsplit(".", 1)[1]])
        if target.endswith("jpg"):
            extra["optimize_coding"] = image.width * image.height <= 4_000_000
        image.write_to_file(target, keep="none", **extra)

    return work


if __name__ == "__main__":
    main()
