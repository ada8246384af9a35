"""Whole pages: their parts as data, their rendering as HTML, and what each kind of page has."""
