"""Object stores by URL: repeated requests, commits by conditional writes, locks, atomic outputs."""
