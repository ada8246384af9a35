"""The loop over passes that every fit goes through, the rules that end it, and why it ended."""
