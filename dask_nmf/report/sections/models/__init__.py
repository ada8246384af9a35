"""The sections about several models: ranks that were compared, and another run beside this one."""
