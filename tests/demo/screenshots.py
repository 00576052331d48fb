"""Take the README's screenshots of the page with the embedded model, for a desk and a phone:

.venv/bin/python -m tests.demo.screenshots [FOLDER]
"""

from __future__ import annotations

import io
import math
import subprocess
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser

from tests.demo.process import served
from tests.demo.visitor import Visitor, chromium

ROOT = Path(__file__).resolve().parent.parent.parent
# Two circles of points; the brush is wide.
DISC = [
    (radius * math.cos(2 * math.pi * i / points), radius * math.sin(2 * math.pi * i / points))
    for radius, points in ((20, 6), (66, 16))
    for i in range(points + 1)
]


def take_desk(address: str, browser: Browser, file: Path) -> None:
    """Save the page with a picture of an example."""
    desk = Visitor(browser.new_page(locale="en-GB", viewport={"width": 1160, "height": 760}), address)
    desk.find(".examples button").nth(1).click()
    desk.draw(seed=1)
    _save(desk, file)


def take_phone(address: str, browser: Browser, file: Path) -> None:
    """Save the page on a phone, at night, with a mask that is painted."""
    options = {"viewport": {"width": 390, "height": 844}, "color_scheme": "dark"}
    phone = Visitor(browser.new_page(locale="ja-JP", **options), address)
    phone.open("repaint")
    phone.find(".examples button").first.click()
    phone.find("button[aria-label='Brush Size']").wait_for()
    phone.page.wait_for_timeout(1000)  # until the editor has moved the picture to its middle
    phone.paint(*DISC)
    _save(phone, file)


def _save(visitor: Visitor, file: Path) -> None:
    visitor.page.evaluate("document.activeElement.blur(); scrollTo(0, 0)")
    visitor.page.wait_for_timeout(500)  # until colours have changed
    Image.open(io.BytesIO(visitor.page.screenshot())).save(file, quality=80, method=6)


if __name__ == "__main__":
    if not subprocess.run(["fc-list", ":lang=ja"], capture_output=True, check=True).stdout:
        sys.exit("no font here has Japanese characters; install one, such as Debian's fonts-noto-cjk")
    with served("-m", "demo", "--port", "{port}", cwd=ROOT) as address, chromium() as browser:
        folder = Path(*sys.argv[1:2] or ["docs"])
        take_desk(address, browser, folder / "demo.webp")
        take_phone(address, browser, folder / "demo-phone.webp")
