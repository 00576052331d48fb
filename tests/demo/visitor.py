"""A visitor of the page: a browser window, and what is done and seen in it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
OPTIONS = (
    "--no-sandbox",  # root has none
    "--disable-gpu",
    "--enable-unsafe-swiftshader",  # the editor draws with WebGL
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)

SIZE = 64  # the side of the pictures, in pixels: the tiny model's own
SECONDS = 30  # longer than anything takes here
# These have to be opened.
SETTINGS = {"negative_prompt", "width", "height", "num_inference_steps", "guidance_scale", "lora", "lora_scale"}
TABS = ("draw", "picture", "repaint")


@contextmanager
def chromium() -> Iterator[Browser]:
    """Context manager: a browser without windows."""
    with sync_playwright() as playwright:
        expect.set_options(timeout=1000 * SECONDS)
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=OPTIONS)
        yield browser
        browser.close()


class Visitor:
    """Opens the page. `asked` lists the addresses that the browser asked for."""

    def __init__(self, page: Page, address: str):
        self.page, self.tab, self.asked = page, "draw", []
        page.set_default_timeout(1000 * SECONDS)
        page.on("request", lambda request: self.asked.append(request.url))
        page.goto(address)
        self.button("go").wait_for()

    def find(self, selector: str) -> Locator:
        """Return what the tab that is open has for a CSS selector."""
        return self.page.locator(f"#{self.tab} {selector}")

    def open(self, tab: str) -> None:
        self.page.get_by_role("tab").nth(TABS.index(tab)).click()
        self.tab = tab
        self.button("go").wait_for()

    def field(self, name: str) -> Locator:
        return self.find(f".field-{name} :is(input, textarea)").first

    def button(self, kind: str) -> Locator:
        """Return the button "go" or "stop"."""
        return self.find(f"button.{kind}")

    def fill(self, **values: object) -> None:
        """Write values into fields of the tab."""
        self.show(*values)
        for name, value in values.items():
            self.field(name).fill(str(value))
            self.field(name).blur()

    def show(self, *names: str) -> None:
        """Open the settings if one of these fields is among them."""
        if SETTINGS & set(names) and not self.field("negative_prompt").is_visible():
            self.find("button.label-wrap").click()
            # Where gradio has just made the fields, it forgets what comes in the first moment: sooner than any hand.
            self.field("negative_prompt").wait_for()
            self.page.wait_for_timeout(500)

    def upload(self, file: Path, name: str = "image") -> None:
        """Choose a file for a field, and wait until the server has it, or the editor, ready to be painted."""
        self.show(name)
        if self.tab == "repaint" and name == "image":
            self.find("canvas").first.wait_for()  # a file that comes sooner is lost
            self.choose(file, name)
            self.find("button[aria-label='Brush Size']").wait_for()
        else:
            with self.page.expect_response(lambda response: "/upload" in response.url):
                self.choose(file, name)

    def choose(self, file: Path, name: str) -> None:
        """Choose a file for a field."""
        self.find(f".field-{name} input[type=file]").first.set_input_files(file)

    def remove(self, name: str) -> None:
        """Take the file away from a field."""
        self.find(f".field-{name} .icon-button-wrapper button").last.click()

    def refusal(self, name: str) -> Locator:
        """Return the sentence below a field."""
        return self.find(f".refused-{name} [role=alert]")

    def paint(self, *path: tuple[int, int]) -> None:
        """Paint a stroke along a path of points, in pixels from the middle of the picture. By default it is short."""
        box, mouse = self.find("canvas").first.bounding_box(), self.page.mouse
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        first, *others = path or ((0, 0), (5, 5))
        mouse.move(x + first[0], y + first[1])
        mouse.down()
        for dx, dy in others:
            mouse.move(x + dx, y + dy)
        mouse.up()

    def draw(self, **values: object) -> None:
        """Fill the fields, click the button, and wait for pictures other than those that are there."""
        self.fill(**values)
        shown = self.find("figure img")
        before = shown.first.get_attribute("src") if shown.count() else ""
        self.button("go").click()
        shown.first.wait_for()
        expect(shown.first).not_to_have_attribute("src", before)
        self.button("stop").wait_for(state="hidden")

    def seed(self) -> int:
        """Return the seed below the first picture."""
        return int(self.find(".facts b").first.text_content())

    def download(self, label: str, to: Path) -> Path:
        """Click the first link with this text, and save what comes."""
        with self.page.expect_download() as download:
            self.find(f"a:has-text('{label}')").first.click()
        file = to / download.value.suggested_filename
        download.value.save_as(file)
        return file
