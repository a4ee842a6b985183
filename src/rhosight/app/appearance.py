"""Set the appearance of the page: theme, style sheet, and descriptions of figures."""

from __future__ import annotations

from pathlib import Path

import gradio as gr

STYLE = Path(__file__).parent / "page.css"

# Labels each figure with the description in its layout, for screen readers
_NAME_FIGURES = """<script>
new MutationObserver(() => {
  for (const plot of document.querySelectorAll('.js-plotly-plot')) {
    const words = plot.layout?.meta?.alternative;
    if (!words || plot.getAttribute('aria-label') === words) continue;
    plot.setAttribute('role', 'img');
    plot.setAttribute('aria-label', words);
  }
}).observe(document.documentElement, {childList: true, subtree: true});
</script>"""

HEAD = f'<meta name="color-scheme" content="light dark">{_NAME_FIGURES}'


def make_theme() -> gr.Theme:
    """Return the theme: fonts of the visitor's system and muted colours."""
    fonts = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"]
    mono = ["ui-monospace", "SFMono-Regular", "Consolas", "monospace"]
    return gr.themes.Base(
        primary_hue="blue",
        neutral_hue="slate",
        font=[gr.themes.Font(name) for name in fonts],
        font_mono=[gr.themes.Font(name) for name in mono],
        radius_size="sm",
    ).set(
        body_text_color_subdued="*neutral_500",
        body_text_color_subdued_dark="*neutral_400",
        block_label_text_color="*neutral_500",
        block_label_text_color_dark="*neutral_300",
    )
