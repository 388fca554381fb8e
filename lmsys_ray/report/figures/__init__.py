"""The figures of a report, as inline SVG: pure functions of counts. Colours are classes of `templates/style.css`."""
