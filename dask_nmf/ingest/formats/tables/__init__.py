"""Tables as sources of rows: CSV and parquet, dense or of entries."""
