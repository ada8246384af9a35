"""Least squares and sparse products that keep their digits, in compiled loops."""
