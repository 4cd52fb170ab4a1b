"""Sans-IO protocol machines. Imports no asyncio, no socket, no clock, no randomness, no third party."""
