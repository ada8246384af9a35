"""Texts as sources of rows: files, JSON lines and columns of tables, whose words are counted."""
