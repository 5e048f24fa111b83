"""Where runs are executed: processes on this machine."""
