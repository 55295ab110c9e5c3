"""What every command needs to run: memory and threads, processes, progress, files."""
