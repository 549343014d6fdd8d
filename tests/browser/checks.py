"""What every page must pass, whatever it shows."""

from __future__ import annotations

from typing import Any

from chromium import Tab


def all_quiet(tab: Tab) -> None:
    """Nothing in the console: no error, no refused file, no violated policy."""
    tab.evaluate("1")
    assert tab.problems == [], tab.problems


CONTRAST = """(() => {
  const parts = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
    .map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = (node) => {
    for (; node; node = node.parentElement) {
      const colour = parts(getComputedStyle(node).backgroundColor);
      if (colour.length < 4 || colour[3] > 0.99) return colour;
    }
    return [255, 255, 255];
  };
  const poor = new Set();
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode.parentElement;
    if (!walker.currentNode.textContent.trim() || !node.checkVisibility()) continue;
    if (node.closest("noscript, .hidden, .skip, script")) continue;
    const [a, b] = [light(parts(getComputedStyle(node).color)), light(ground(node))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    const size = parseFloat(getComputedStyle(node).fontSize);
    if (ratio < (size >= 24 ? 3 : 4.5)) poor.add(node.className + ": " +
      walker.currentNode.textContent.trim().slice(0, 30) + " " + ratio.toFixed(2));
  }
  return [...poor];
})()"""


def hard_to_read(tab: Tab) -> Any:
    """Texts without the contrast that WCAG 2.1 asks for at level AA: 4.5 to 1, 3 to 1 for large ones."""
    return tab.evaluate(CONTRAST)


def wider_than_the_screen(tab: Tab) -> Any:
    """Elements that end to the right of it, without those that scroll by themselves."""
    return tab.evaluate(
        """[...document.querySelectorAll('body *')].filter((node) =>
        node.getBoundingClientRect().right > innerWidth + 1 && !node.closest('.scroll, pre, .hidden'))
        .map((node) => node.outerHTML.slice(0, 80))"""
    )
