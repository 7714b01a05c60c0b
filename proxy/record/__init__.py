"""The record on disk and in a bucket: read, compacted, searched, erased."""
