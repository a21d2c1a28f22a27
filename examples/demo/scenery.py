"""Render photographs of 12 megapixels: a millpond between hills, a different one for each number.

A scene is painted small, with a sky, rows of hills in the haze, a mill and its reflection. It is then
enlarged, and grain is added, so that its file is as long and as slow to decode as a real photograph.
"""

import math
import random
from array import array
from datetime import UTC, datetime, timedelta
from typing import Any

from millpond.tasks.files.vips import libvips

WIDTH, HEIGHT, LONG_SIDE = 640, 480, 4000

#: The colours at hours of the day: of the sky above, of the sky at the horizon, of the hills.
_HOURS = (
    ((88, 132, 190), (226, 226, 214), (46, 74, 58)),
    ((46, 60, 110), (244, 164, 110), (44, 42, 66)),
    ((24, 34, 66), (136, 120, 150), (20, 26, 44)),
    ((126, 154, 176), (240, 236, 226), (86, 104, 96)),
    ((60, 110, 170), (250, 214, 150), (58, 82, 44)),
    ((110, 96, 150), (250, 190, 190), (66, 54, 84)),
)
_GRAIN = 6.0
_TILE = 512
#: How far a ripple may reach past the edge of the picture, in pixels.
_MARGIN = 40


def write_photograph(number: int, path: str, *, quality: int = 88) -> None:
    """Write scene `number` as a JPEG of 12 megapixels. Every fourth is upright, by its EXIF orientation."""
    scene = _scene(random.Random(number)).cast("uchar").copy(interpretation="srgb")
    upright = number % 4 == 3
    if upright:
        across = HEIGHT * 3 // 4
        scene = scene.crop((WIDTH - across) // 2, 0, across, HEIGHT).rot270()
    half = scene.copy_memory().resize(LONG_SIDE / scene.width / 2, kernel="linear")
    grainy = (half + _grain(number, half)).cast("uchar").copy(interpretation="srgb")
    _with_exif(grainy.zoom(2, 2), number, upright=upright).jpegsave(path, Q=quality)


def _scene(dice: random.Random) -> Any:
    """Return a scene of WIDTH x HEIGHT pixels, in floating point."""
    above, horizon, near = dice.choice(_HOURS)
    shore = int(HEIGHT * dice.uniform(0.55, 0.68))
    land = _sky(dice, shore, above, horizon)
    rows = dice.randint(3, 5)
    for row in range(rows):
        haze = (1 - (row + 1) / rows) * 0.75
        colour = [haze * far + (1 - haze) * dark for far, dark in zip(horizon, near, strict=True)]
        top = shore * (0.50 + 0.44 * (row + 1) / rows)
        land = _hill(dice, top, shore / (6 + 3 * row), shore).ifthenelse(colour, land, blend=True)
    land = _mill(dice, shore).ifthenelse([part * 0.45 for part in near], land, blend=True)
    return land.join(_water(dice, land), "vertical")


def _sky(dice: random.Random, height: int, above: tuple[int, ...], horizon: tuple[int, ...]) -> Any:
    """Return a sky with a sun and clouds, from the colour above to the colour at the horizon."""
    vips = libvips().Image
    pixels = vips.xyz(WIDTH, height)
    low = (pixels[1] / height) ** 1.3
    sky = low * [h - a for h, a in zip(horizon, above, strict=True)] + list(above)
    x, y = dice.uniform(0.25, 0.75) * WIDTH, dice.uniform(0.25, 0.6) * height
    away = (((pixels[0] - x) ** 2 + (pixels[1] - y) ** 2) ** 0.5) / dice.uniform(12, 22)
    glow = (away * -0.25).exp() * 70 + (6 * (1.4 - away)).exp().relational_const("more", [1.0]) * 0.35
    clouds = vips.perlin(WIDTH, height, cell_size=dice.choice((64, 80, 128)), seed=dice.getrandbits(30))
    return sky + glow + (clouds > 0.12).ifthenelse(clouds - 0.12, 0) * low * 90


def _hill(dice: random.Random, top: float, swing: float, height: int) -> Any:
    """Return the mask of a hill, 0 outside to 255 inside. Its edge is a sum of waves, soft by a pixel."""
    waves = [(dice.uniform(0.6, 1.4) * 2**n, dice.uniform(0, 7), 0.62**n) for n in range(7)]
    edge = array(
        "f",
        (
            top - swing * sum(size * math.sin(freq * x / WIDTH * 4 + turn) for freq, turn, size in waves) / 2
            for x in range(WIDTH)
        ),
    )
    vips = libvips().Image
    line = vips.new_from_memory(edge.tobytes(), WIDTH, 1, 1, "float").zoom(1, height)
    return ((vips.xyz(WIDTH, height)[1] - line) * 255).cast("uchar")


def _mill(dice: random.Random, shore: int) -> Any:
    """Return the mask of a house with a wheel at the water."""
    x, size = int(dice.uniform(0.2, 0.7) * WIDTH), dice.randint(22, 38)
    wheel = size * 11 // 20
    walls = libvips().Image.black(WIDTH, shore).draw_rect(255, x, shore - size, size, size, fill=True)
    for step in range(size * 2 // 3):
        walls = walls.draw_line(
            255, x - 6 + step, shore - size - step, x + size + 6 - step, shore - size - step
        )
    hub = x + size + wheel
    for ring in range(4):
        walls = walls.draw_circle(255, hub, shore - wheel, wheel - ring)
    for spoke in range(8):
        across, up = wheel * math.cos(spoke * math.pi / 4), wheel * math.sin(spoke * math.pi / 4)
        walls = walls.draw_line(255, hub, shore - wheel, int(hub + across), int(shore - wheel + up))
    return walls


def _water(dice: random.Random, land: Any) -> Any:
    """Return the mirror image of the land, darker and with ripples that grow towards the viewer."""
    vips = libvips().Image
    height = HEIGHT - land.height
    mirrored = land.flip("vertical").crop(0, 0, WIDTH, min(height, land.height))
    pixels = vips.xyz(WIDTH, mirrored.height)
    ripple = vips.perlin(WIDTH, 4 * mirrored.height, cell_size=40, seed=dice.getrandbits(30))
    ripple = ripple.resize(1, vscale=0.25).crop(0, 0, WIDTH, mirrored.height)
    depth = pixels[1] / mirrored.height
    moved = (pixels[0] + ripple * (3 + 22 * depth)).bandjoin(pixels[1] + ripple * (1 + 10 * depth))
    size = (WIDTH + 2 * _MARGIN, mirrored.height + 2 * _MARGIN)
    wider = mirrored.embed(_MARGIN, _MARGIN, *size, extend="copy")
    return wider.mapim(moved + _MARGIN) * 0.78 + [4, 10, 16]


def _grain(number: int, large: Any) -> Any:
    """Return grain for a picture. It repeats one tile of noise, because noise is slow to make."""
    noise = libvips().Image.gaussnoise(_TILE, _TILE, sigma=_GRAIN, mean=0, seed=number)
    tile = noise.cast("char").copy_memory()
    across, down = -(-large.width // _TILE), -(-large.height // _TILE)
    return tile.replicate(across, down).crop(0, 0, large.width, large.height)


def _with_exif(image: Any, number: int, *, upright: bool) -> Any:
    """Return a copy of the image with a camera, a time and an orientation in its EXIF."""
    taken = datetime(2024, 5, 1, 6, tzinfo=UTC) + timedelta(hours=7 * number)
    image = image.copy()
    text = libvips().GValue.gstr_type
    image.set_type(libvips().GValue.gint_type, "orientation", 6 if upright else 1)
    image.set_type(text, "exif-ifd0-Model", "Millpond demo")
    image.set_type(text, "exif-ifd2-DateTimeOriginal", f"{taken:%Y:%m:%d %H:%M:%S}")
    return image
