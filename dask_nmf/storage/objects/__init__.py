"""Object stores by URL: requests that are repeated, commits by conditional writes, locks, atomic outputs."""
