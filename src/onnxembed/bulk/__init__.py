"""Bulk jobs: files of texts in, parquet files of vectors out, resumable. Needs the extra [bulk]."""
