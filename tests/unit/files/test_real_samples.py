"""The results for real samples are those of reference tools, except for the differences listed here."""

import re
import shutil
import subprocess
import warnings
from collections import Counter
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageChops, ImageOps, ImageStat
from real_samples import download_from_debian, download_from_pypi, list_files, uudecode

from millpond.tasks.context import Context
from millpond.tasks.errors import FinalError
from millpond.tasks.files.archives import unpack
from millpond.tasks.files.contract import ConvertImage, PdfText, Unpack
from millpond.tasks.files.image_readers import FORMATS
from millpond.tasks.files.images import convert_image
from millpond.tasks.files.magic_numbers import HEAD_BYTES, detect_format
from millpond.tasks.files.pdf import extract_text
from millpond.tasks.files.storage import Storage

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1_800)]

#: Differences from Pillow, by name, with their reason.
IMAGES = {
    "*cmyk*": "differs: libvips has a press profile for CMYK without one, Pillow subtracts",
    "xmp_tags_orientation*": "differs: an orientation in XMP alone is not applied, as browsers do not",
    "exif_imagemagick_orientation.png": "differs: EXIF in a text chunk of ImageMagick's own is not read",
    "icc_profile_big.jpg": "differs: the colours are brought to sRGB by its profile, Pillow leaves them",
    "i_trns.png": "differs: Pillow drops the transparency of 16-bit grey",
    "*Lab*": "refused: L*a*b* of 8 bits",
    "lab*": "refused: L*a*b* of 8 bits",
    "*bit*": "refused: samples of 12 bits, signed, or floating-point",
    "tiff_wrong_bits_per_sample_2.tiff": "refused: samples of 1 and 8 bits",
    "separate_planar_extra_samples.tiff": "refused: floating-point samples",
    "hopper_lzma.tif": "refused: the wheel of libvips has no LZMA for TIFF",
    "old-style-jpeg*": "refused: the JPEG of TIFF 6.0",
    "rdf.tif": "refused: a palette with transparency",
    "tiff_tiled_planar*": "refused: libvips reads no tiles in planes",
}
#: Differences from poppler's pdftotext.
PDFS = {
    "FormTestFromOo.pdf": "differs: poppler prints all options of a list, we those that are chosen",
    "indirect-rotation.pdf": "differs: PDFium parts the words of rotated text",
    "r5-user-password.pdf": "refused: a password is needed, poppler opens it without",
    "r6-user-password.pdf": "refused: a password is needed, poppler opens it without",
}
#: Differences from bsdtar.
ARCHIVES = {
    "*hard link*": "links are refused",
    "*symbolic link*": "links are refused",
    "*comes twice*": "of two entries with one name only one could be kept",
    "*outside the target*": "absolute names are refused, bsdtar strips them",
    "*backslash*": "other systems take it for a folder",
    "*not UTF-8: give the encoding*": "bsdtar writes the bytes as they are",
    "*looks like compress*": "compress (.Z) is not read",
    "*looks like lz4*": "lz4 is not read",
    "*looks like lzip*": "lzip is not read",
    "*no archive that is unpacked here*": "cpio, rpm, lzma alone and others are not read",
    "*holds no tar, by its first header*": "a file alone or a cpio, compressed: no tar",
    "*PPMd*": "no reader here knows PPMd",
    "*#!gnu-sparse-format*": "a sparse map that tarfile does not read",
    "*max_unpacked_ratio*": "holes count as what they make",
    "*File is not a zip file*": "no directory at its end",
    "test_read_format_tar_concatenated.tar": "bsdtar stops at the first end mark",
    "test_compat_star_acl_posix1e.tar": "bsdtar cannot set its access rights here",
    "test_read_format_tar_empty_filename.tar": "an entry without a name is a folder to tarfile",
}


def listed(reasons: dict[str, str], *texts: str) -> bool:
    return any(fnmatch(text, pattern) for pattern in reasons for text in texts)


def attempt(run: Callable[[], Any]) -> tuple[Any, str]:
    """Return the result of an operation, or None and its error; no other error may come out of it."""
    try:
        return run(), ""
    except FinalError as error:
        return None, repr(str(error)) if "\n" in str(error) else str(error)


def flat(image: Image.Image) -> Image.Image:
    """Return a picture on white, in 8 bits, as a person sees it."""
    if image.mode.startswith("I;16"):
        image = image.convert("I").point(lambda value: value / 257).convert("L")
    seen = Image.new("RGBA", image.size, "white")
    seen.alpha_composite(image.convert("RGBA"))
    return seen.convert("RGB")


def pillow_reads(path: Path) -> Image.Image | None:
    try:
        with warnings.catch_warnings(), Image.open(path) as image:
            warnings.simplefilter("ignore")
            image.load()
            upright = ImageOps.exif_transpose(image)
            return flat(upright)
    except Exception:
        return None


def test_images_of_pillow(tmp_path: Path, store: Storage, root: Path, context: Context) -> None:
    """Every image that Pillow and Millpond read looks the same, and each refusal of Millpond is listed."""
    samples = download_from_pypi("pillow", tmp_path) / "Tests" / "images"
    compared, unlisted = 0, []
    for path in list_files(samples):
        with path.open("rb") as file:
            if detect_format(file.read(HEAD_BYTES)) not in FORMATS:
                continue
        shutil.copy(path, root / "in")
        done, said = attempt(
            lambda: convert_image(ConvertImage(source="in", target="out.png"), store, context)
        )
        wanted = pillow_reads(path)
        if wanted is None:
            continue
        compared += 1
        if done is None:
            difference = said
        else:
            with Image.open(root / "out.png") as image:
                found = flat(image)
            if found.size == wanted.size:
                far = max(ImageStat.Stat(ImageChops.difference(found, wanted)).mean)
                difference = f"by {far:.0f} a pixel" if far > 3 else ""
            else:
                difference = f"{found.size} and not {wanted.size}"
        if difference and not listed(IMAGES, path.name):
            unlisted.append(f"{path.name}: {difference}")
    assert unlisted == []
    assert compared > 300


def _words(text: str) -> Counter[str]:
    return Counter(re.findall(r"\w{3,}", text))


def test_pdfs_of_pypdf(tmp_path: Path, store: Storage, root: Path, context: Context) -> None:
    """Nine in ten of pdftotext's words are found, in every document."""
    if not shutil.which("pdftotext"):
        pytest.skip("pdftotext is not installed")
    compared, unlisted = 0, []
    for path in list_files(download_from_pypi("pypdf", tmp_path)):
        if path.suffix != ".pdf":
            continue
        shutil.copy(path, root / "in.pdf")
        done, said = attempt(lambda: extract_text(PdfText(source="in.pdf", target="out.txt"), store, context))
        reference = subprocess.run(
            ["pdftotext", "-enc", "UTF-8", str(path), "-"], capture_output=True, check=False, timeout=120
        )
        if reference.returncode:
            continue
        compared += 1
        wanted = _words(reference.stdout.decode(errors="replace"))
        missing = Counter() if done is None else wanted - _words((root / "out.txt").read_text())
        if (done is None or missing.total() > 0.1 * wanted.total()) and not listed(PDFS, path.name):
            unlisted.append(f"{path.name}: {said or missing.most_common(5)}")
    assert unlisted == []
    assert compared > 40


def _tree(folder: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
        if not path.is_symlink() and (path.is_file() or not any(path.iterdir()))
    }


def _bsdtar(archive: Path, folder: Path) -> dict[str, bytes | None] | None:
    folder.mkdir()
    try:
        done = subprocess.run(
            ["bsdtar", "-xf", str(archive), "-C", str(folder)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=15,
            start_new_session=True,  # it asks the terminal for passwords
        )
    except subprocess.TimeoutExpired:
        return None
    subprocess.run(["chmod", "-R", "u+rwX", str(folder)], check=True)
    return None if done.returncode else _tree(folder)


def test_archives_of_libarchive(tmp_path: Path, store: Storage, root: Path, context: Context) -> None:
    """Every archive that both unpack has the same files with the same content."""
    if not shutil.which("bsdtar"):
        pytest.skip("bsdtar is not installed")
    compared, unlisted = 0, []
    for number, path in enumerate(list_files(download_from_debian("libarchive", tmp_path))):
        if (
            path.suffix != ".uu"
            or not re.search("tar|zip|pax|gz|xz|zst|bz2|tgz|tbz", path.name)
            or "7zip" in path.name
        ):
            continue
        (root / "in").write_bytes(uudecode(path))
        shutil.rmtree(root / "out", ignore_errors=True)
        done, said = attempt(lambda: unpack(Unpack(source="in", target="out"), store, context))
        wanted = _bsdtar(root / "in", tmp_path / f"reference {number}")
        if wanted is None:
            continue
        compared += 1
        if (done is None or _tree(root / "out") != wanted) and not listed(ARCHIVES, path.stem, said):
            unlisted.append(f"{path.stem}: {said or 'other files'}")
    assert unlisted == []
    assert compared > 80


def test_tables_as_pythons_csv_and_pyarrow_read_them(
    tmp_path: Path, store: Storage, root: Path, context: Context
) -> None:
    """Every CSV and JSONL beside this Python gives the values that Python's readers give."""
    import csv
    import json

    import pyarrow.parquet as pq

    from millpond.tasks.files.contract import ToParquet
    from millpond.tasks.files.tables import to_parquet

    # Text alone: the reading of a value by a type is tested with the types.
    compared = 0
    for path in list_files(Path(json.__file__).parents[1]):
        if path.suffix not in (".csv", ".tsv", ".jsonl") or path.stat().st_size > 10_000_000:
            continue
        shutil.copy(path, root / f"in{path.suffix}")
        with path.open(encoding="utf-8", newline="") as file:
            if path.suffix == ".jsonl":
                wanted = [json.loads(line) for line in file if line.strip()]
                names = {name: "string" for row in wanted for name in row}
            else:
                rows = [
                    row for row in csv.reader(file, delimiter="\t" if path.suffix == ".tsv" else ",") if row
                ]
                names = dict.fromkeys(rows[0], "string") if rows else {}
                wanted = [dict(zip(rows[0], row, strict=False)) for row in rows[1:]] if rows else []
        job = ToParquet.model_validate({"source": f"in{path.suffix}", "target": "out", "types": names})
        done, _ = attempt(lambda job=job: to_parquet(job, store, context))
        if done is None:
            continue
        compared += 1
        found = pq.read_table(root / "out").to_pylist()
        assert len(found) == len(wanted), path
        for one, other in zip(found, wanted, strict=True):
            for name, value in other.items():
                assert (one[name] or "") == (value if isinstance(value, str) else json.dumps(value)), path
    if not compared:
        pytest.skip("no table lies beside this Python")
