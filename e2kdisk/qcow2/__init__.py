"""The qcow2 format: header, mapping, refcounts, allocation, copy on write."""
