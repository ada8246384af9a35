"""Figures of a report as inline SVG, in colours that can be told apart on light and on dark paper."""
