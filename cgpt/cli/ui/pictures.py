"""Pictures as commands write them: labels in the language of this run where the font has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cgpt.cli.ui.terminal import notify
from cgpt.locale import language, t

if TYPE_CHECKING:
    from cgpt.plots.fonts import Font


def lettering(
    labels: Mapping[str, str], names: Sequence[str], font_file: str | None
) -> tuple[dict[str, str], list[str], Font]:
    """(labels, names as they are written, the font that shows most of them).

    Labels stay English where no font has Chinese letters, and a name that the font cannot show
    becomes a number; both are said. Raises CgptError where matplotlib is not installed.
    """
    from cgpt.plots.figures import require_matplotlib
    from cgpt.plots.fonts import ADVICE, find_font

    require_matplotlib()
    translated = {key: t(text) for key, text in labels.items()}
    font = find_font([*translated.values(), *names], font_file)
    if language() != "en" and not all(map(font.covers, translated.values())):
        notify(
            t(
                "no font with Chinese letters was found, so the labels are English; "
                "install {font} (Debian/Ubuntu: apt install fonts-noto-cjk), or name "
                "one by --font FILE",
                font=ADVICE,
            )
        )
        translated = dict(labels)
    shown = [name if font.covers(name) else f"#{i}" for i, name in enumerate(names, 1)]
    told = [f"{new} = {name}" for name, new in zip(names, shown, strict=True) if name != new]
    if told:
        notify(
            t(
                "numbers in the picture, where the font lacks letters: {names}",
                names=", ".join(told),
            )
        )
    return translated, shown, font


def save_picture(figure: Any, path: str, font: Font) -> None:
    """Write a figure of plots/ and say so."""
    from cgpt.plots.figures import save

    save(figure, path, font)
    notify(t("picture saved: {path}", path=path))
