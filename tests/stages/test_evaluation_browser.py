"""The page in a real browser, where there is one: no error on its console, nothing wider than the window."""

from __future__ import annotations

import html as markup
import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from evaluated import three_arms

from metaprune_cli.reports.gallery import Shown, Wall
from metaprune_cli.reports.page import Contents, html
from metaprune_cli.reports.png import png_of
from metaprune_cli.reports.summary import summarise
from metaprune_cli.reports.widths import Family, Widths

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
DESK, PHONE = 1280, 390
LONG = "encoder.layers.encoder_layer_11.self_attention"
# The page allows itself no script, so another one that holds it in a frame measures it.
MEASURES = """<!DOCTYPE html><iframe id="page" src="page.html" style="width: %dpx; height: 4000px; border: 0"></iframe>
<pre id="found"></pre><script>
document.getElementById("page").onload = (event) => {
  const page = event.target.contentDocument, width = page.documentElement.clientWidth
  const scrolls = [...page.querySelectorAll(".scroll")]
  const outside = [...page.body.querySelectorAll("*")].filter((one) =>
    one.getBoundingClientRect().right > width + 1 && !one.closest(".scroll") && !one.closest("svg"))
  const text = JSON.stringify({
    width: width, needed: page.documentElement.scrollWidth,
    outside: outside.map((one) => one.tagName + " " + one.textContent.slice(0, 40)),
    cut: scrolls.filter((one) => one.scrollWidth > one.clientWidth + 1).map((one) => one.textContent.slice(0, 60)),
  })
  document.getElementById("found").textContent = text
}
</script>"""


def page() -> str:
    """All that a page may have, with names as long as people have them."""
    rows = [
        replace(one, name=f"{one.name}-resnet56-heldout-17.transformed.pruned-2.5x.finetuned") for one in three_arms()
    ]
    families = (Family("stem", 16, 9, None), Family(LONG, 64, 31, None), Family(LONG, 12, 7, None, "heads"))
    picture = png_of(torch.zeros(3, 160, 160, dtype=torch.uint8))
    walls = [Wall("Set5: baby", (tuple(Shown("whole model", "PSNR 31.59 dB", picture) for _ in range(5)),))]
    steps = ({"command": "zoo", "input": None, "seed": 3}, {"command": "prune", "input": "a.pt", "requested": 2.0})
    return html(
        Contents(
            rows,
            summarise(rows),
            {"Images": "the 539 test images of digits", "Latency": "median of 30 interleaved runs with a batch of 8"},
            {row.name: steps for row in rows},
            [Widths("torchvision:vit_b_16", "net-0", arm, 2.0, families) for arm in ("plain", "metanet")],
            "metaprune eval " + " ".join(f"data/finetuned/{row.name}.safetensors" for row in rows[:6]),
            {"metaprune": "0.1.0"},
            walls,
        )
    )


@pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed")
@pytest.mark.parametrize("width", [DESK, PHONE])
def test_nothing_is_wider_than_the_window_and_the_console_is_silent(width: int, tmp_path: Path) -> None:
    assert BROWSER is not None
    (tmp_path / "page.html").write_text(page(), encoding="utf-8")
    (tmp_path / "measures.html").write_text(MEASURES % width, encoding="utf-8")
    ran = subprocess.run(
        [
            *(BROWSER, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
            *("--allow-file-access-from-files", f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1400,900"),
            *("--enable-logging=stderr", "--virtual-time-budget=5000", "--dump-dom"),
            (tmp_path / "measures.html").as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert "CONSOLE" not in ran.stderr
    text = re.search(r'<pre id="found">(.+?)</pre>', ran.stdout)
    assert text is not None, ran.stderr
    found = json.loads(markup.unescape(text.group(1)))
    assert found["width"] == width
    assert found["needed"] <= width
    assert found["outside"] == []
    if width == DESK:  # on a phone a table may be moved sideways in its frame
        assert found["cut"] == []
