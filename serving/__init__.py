"""What serving through Cog needs beside `predict.py`: pictures that come in, slots, temporary folders, health."""
