"""Where exchanges are kept: segment files on disk, memory for tests."""
