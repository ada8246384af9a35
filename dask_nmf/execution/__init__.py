"""Engines: V cut into tasks, the graphs of a pass, and their computation by threads or workers."""
